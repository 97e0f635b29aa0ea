"""Runs the steps on the plain model, using only Keras and its converter."""

import os
import re
from pathlib import Path

import keras
import numpy as np

from sweep_models import comparing
from sweep_models.comparing import answer

_TOLERANCE = 1e-3
STEPS = ("fit", "saved_model", "litert", "keras_file")


def attempt(case, step, directory):
    """Tries a step on the plain model of a case.

    Args:
        case: `Case`.
        step: String, a key of `STEPS`.
        directory: Path of a directory for files.

    Returns:
        `None` if the step succeeds, or a message.
    """
    directory = Path(directory) / "dense"
    directory.mkdir(exist_ok=True)
    problem = case.build()
    try:
        globals()[f"_{step}"](problem, directory)
    except Exception as error:
        message = " ".join(str(error).split())
        return f"{type(error).__name__}: {message[:300]}"
    return None


def _fit(problem, directory):
    trainer = problem.trainer(problem.model)
    problem.compile_model(trainer)
    problem.train(trainer, 2)
    if not comparing.is_finite(answer(problem.model, problem.probe())):
        raise comparing.Wrong("after `fit` it computes NaN or infinities")


def _keras_file(problem, directory):
    # After training, like the stripped model.
    trainer = problem.trainer(problem.model)
    problem.compile_model(trainer)
    problem.train(trainer, 1)
    path = directory / "plain.keras"
    expected = answer(problem.model, problem.probe())
    problem.model.save(path)
    loaded = keras.saving.load_model(path, compile=False)
    received = answer(loaded, problem.probe())
    comparing.refuse_unlike(expected, received, problem.tolerance)
    if type(loaded) is not type(problem.model):
        raise comparing.Wrong(f"the file holds a {type(loaded).__name__}")


def _saved_model(problem, directory):
    path = directory / "saved_model"
    expected = answer(problem.model, problem.probe())
    problem.model.export(path, format="tf_saved_model", verbose=False)
    received = run_saved_model(path, problem.model, problem.probe())
    _compare(problem, expected, received)


def _litert(problem, directory):
    """Succeeds if any of the ways to use the converter succeeds."""
    import tensorflow as tf

    model, probe = problem.model, problem.probe()
    expected = answer(model, probe)
    path = directory / "model.tflite"
    problems = []

    def keras_export(size):
        model.export(path, format="litert", verbose=False)

    def function(size):
        specs = keras.tree.map_structure(
            lambda value: tf.TensorSpec(
                (size, *np.shape(value)[1:]), tf.as_dtype(value.dtype)
            ),
            probe,
        )
        call = tf.function(lambda x: model(x, training=False))
        concrete = call.get_concrete_function(specs)
        converter = tf.lite.TFLiteConverter.from_concrete_functions(
            [concrete], model
        )
        path.write_bytes(converter.convert())

    rows = len(keras.tree.flatten(probe)[0])
    ways = [(keras_export, 0)]
    ways += [(function, size) for size in (None, 1, rows)]
    for way, size in ways:
        try:
            way(size)
            received = run_litert(path, model, probe)
            _compare(problem, expected, received)
        except Exception as error:
            text = " ".join(str(error).split())[:150]
            problems.append(f"{type(error).__name__}: {text}")
        else:
            return
    raise RuntimeError(" / ".join(dict.fromkeys(problems)))


def _compare(problem, expected, received):
    if comparing.same(expected, answer(problem.model, problem.probe()), 1e-6):
        tolerance = max(_TOLERANCE, problem.tolerance)
        comparing.refuse_unlike(expected, received, tolerance)
    else:
        comparing.refuse_other_shapes(expected, received)


def run_saved_model(path, model, inputs):
    """Returns the outputs of a SavedModel in plain TensorFlow."""
    import tensorflow as tf

    serve = tf.saved_model.load(os.fspath(path)).signatures["serving_default"]
    _, specs = serve.structured_input_signature
    feed = _feed(model, inputs, list(specs))
    for name, value in feed.items():
        if not specs[name].shape.is_compatible_with(np.shape(value)):
            raise comparing.Wrong(
                f"'{name}' is {specs[name].shape}, not {np.shape(value)}"
            )
    outputs = serve(
        **{
            name: tf.constant(value, specs[name].dtype)
            for name, value in feed.items()
        }
    )
    return _in_order({k: v.numpy() for k, v in outputs.items()})


def run_litert(path, model, inputs):
    """Returns the outputs of a TFLite file with any batch size."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=os.fspath(path))
    [key] = interpreter.get_signature_list()
    runner = interpreter.get_signature_runner(key)
    details = runner.get_input_details()
    feed = _feed(model, inputs, list(details))
    feed = {
        name: np.asarray(value).astype(details[name]["dtype"])
        for name, value in feed.items()
    }
    fixed = {
        int(detail["shape_signature"][0])
        for detail in details.values()
        if len(detail["shape_signature"])
    }
    rows = len(next(iter(feed.values())))
    size = max(fixed) if fixed and min(fixed) > 0 else rows
    pieces = []
    for start in range(0, rows - size + 1, size):
        part = {k: v[start : start + size] for k, v in feed.items()}
        pieces.append({k: np.array(v) for k, v in runner(**part).items()})
    joined = {
        name: np.concatenate([np.atleast_1d(piece[name]) for piece in pieces])
        if len(pieces) > 1
        else pieces[0][name]
        for name in pieces[0]
    }
    return _in_order(joined)


def _feed(model, inputs, names):
    """Returns the inputs by the names of a signature.

    Matches them by the keys of dicts, by the names of the model's inputs, or in
    the order of the structure.
    """
    values = keras.tree.flatten(inputs)
    if len(names) == 1:
        return {names[0]: values[0]}
    bare = {
        re.sub(r"^(serving_default|args_\d+)_|:0$", "", n): n for n in names
    }
    leaves = [str(path[-1]) for path, _ in keras.tree.flatten_with_path(inputs)]
    symbols = getattr(model, "inputs", None) or []
    for known in (leaves, [symbol.name for symbol in symbols]):
        if sorted(known) == sorted(bare):
            return {
                bare[name]: value
                for name, value in zip(known, values, strict=True)
            }
    return dict(zip(sorted(names, key=_number), values, strict=True))


def _in_order(outputs):
    return {name: outputs[name] for name in sorted(outputs, key=_number)}


def _number(name):
    return [
        int(part) if part.isdigit() else part
        for part in re.split(r"(\d+)", name)
    ]
