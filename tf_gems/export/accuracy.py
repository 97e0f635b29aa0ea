"""Accuracy of what was exported, on labelled data."""

import numpy as np

from tf_gems.export.outputs import as_array
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


def keras_outputs(network, flat, model=None):
    """Returns the first output of a Keras model for all examples.

    Args:
        network: `tf_gems.export.network.Network`.
        flat: Flat list of arrays, see `Signature`.
        model: See `Network.outputs`. Defaults to `None`.
    """

    def step(batch):
        return _first(network.outputs([batch], model)[0])

    return _all(step, flat, network.signature.batch_size or _BATCH)


def litert_outputs(path, signature, flat):
    """Returns the first output of a TFLite file for all examples."""
    interpreter_class, _, _ = load_interpreter()
    with quiet():
        interpreter = interpreter_class(model_path=path)
        runner = interpreter.get_signature_runner()
    details = runner.get_input_details()
    shapes = [d.get("shape_signature", d["shape"]) for d in details.values()]
    is_fixed = all(shape[0] > 0 for shape in shapes)
    batch_size = int(shapes[0][0]) if is_fixed else _BATCH
    signature = signature.in_float32()

    def step(batch):
        feed = signature.feed(batch)
        names = match(feed, details)
        outputs = runner(**{names[k]: v for k, v in feed.items()})
        return _first(outputs)

    with quiet():
        return _all(step, flat, batch_size)


def saved_model_outputs(directory, signature, flat):
    """Returns the first output of a SavedModel for all examples."""
    import tensorflow as tf

    with quiet():
        serve = tf.saved_model.load(directory).signatures["serving_default"]

    def step(batch):
        feed = {
            spec.name: tf.constant(value, spec.dtype)
            for spec, value in zip(signature.specs, batch, strict=True)
        }
        return _first(serve(**feed))

    return _all(step, flat, signature.batch_size or _BATCH)


def _first(outputs):
    return outputs[min(outputs)]


def _all(step, flat, size=_BATCH):
    """Runs all examples in batches of equal size."""
    count = len(flat[0])
    outputs = []
    for start in range(0, count, size):
        # The last batch repeats examples, so that all batches have one size.
        first = max(0, min(start, count - size))
        batch = [x[first : first + size] for x in flat]
        values = np.asarray(as_array(step(batch)))
        outputs.append(values[start - first :])
    return np.concatenate(outputs)
