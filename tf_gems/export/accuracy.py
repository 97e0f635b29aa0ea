"""Accuracy of what was exported, on labelled data."""

import keras
import numpy as np

from tf_gems.export.comparison import named_inputs
from tf_gems.export.quiet import quiet
from tf_gems.export.run_litert import load_interpreter
from tf_gems.export.run_litert import match

_BATCH = 100


def accuracy(labels, outputs):
    """Returns the share of examples whose largest output is their label.

    Args:
        labels: Array of integers, or of one row of classes for each example.
        outputs: Array `(examples, classes)`.
    """
    labels = np.asarray(labels)
    if labels.ndim == outputs.ndim and labels.shape[-1] == outputs.shape[-1]:
        labels = labels.argmax(-1)
    labels = labels.reshape(outputs.shape[:-1])
    return float(np.mean(outputs.argmax(-1) == labels))


def keras_outputs(model, arguments):
    """Returns the first output of a Keras model for all examples."""
    return _all(
        lambda batch: keras.tree.flatten(model(*batch, training=False))[0],
        arguments,
    )


def litert_outputs(path, signature, arguments):
    """Returns the first output of a TFLite file for all examples."""
    interpreter_class, _, _ = load_interpreter()
    with quiet():
        interpreter = interpreter_class(model_path=path)
        runner = interpreter.get_signature_runner()
    details = runner.get_input_details()
    shapes = [d.get("shape_signature", d["shape"]) for d in details.values()]
    is_fixed = all(shape[0] > 0 for shape in shapes)
    batch_size = int(shapes[0][0]) if is_fixed else _BATCH

    def step(batch):
        feed = named_inputs(signature, batch)
        names = match(feed, details)
        outputs = runner(**{names[k]: v for k, v in feed.items()})
        return outputs[min(outputs)]

    with quiet():
        return _all(step, arguments, batch_size)


def saved_model_outputs(directory, signature, arguments):
    """Returns the first output of a SavedModel for all examples."""
    import tensorflow as tf

    with quiet():
        serve = tf.saved_model.load(directory).signatures["serving_default"]

    def step(batch):
        feed = named_inputs(signature, batch)
        outputs = serve(**{k: tf.constant(v) for k, v in feed.items()})
        return outputs[min(outputs)]

    return _all(step, arguments)


def _all(step, arguments, size=_BATCH):
    """Runs all examples by batches; those left over are run with others."""
    count = len(keras.tree.flatten(arguments)[0])
    outputs = []
    for start in range(0, count, size):
        # The last batch reaches back, so that it is as large as the others.
        first = max(0, min(start, count - size))
        batch = keras.tree.map_structure(
            lambda x, first=first: np.asarray(x)[first : first + size],
            arguments,
        )
        values = keras.ops.convert_to_numpy(step(batch))
        outputs.append(values[start - first :])
    return np.concatenate(outputs)
