"""Accuracy of what was exported, on labelled data."""

import numpy as np

from tf_gems.export.run_litert import load_runner
from tf_gems.export.signature import as_array
from tf_gems.quiet import quiet

_BATCH = 100
_OWN = "Pass a function of labels and outputs as `metric`."


def accuracy(labels, outputs):
    """Returns the share of examples whose largest output is their label.

    A single output is a probability, for example of a sigmoid. The prediction
    is 1 if it exceeds 0.5, as for Keras' `"accuracy"`.

    Args:
        labels: Array of integers, or of one row of classes for each example,
            with a sum of 1.
        outputs: Array `(examples, classes)`.
    """
    labels, outputs = np.asarray(labels), np.asarray(outputs)
    if outputs.ndim < 2 or outputs.shape[-1] == 1:
        return _of_probabilities(labels, outputs)
    if labels.shape == outputs.shape:
        if not np.allclose(labels.sum(-1), 1, atol=1e-3):
            raise ValueError(
                "Accuracy is the fraction of examples with the correct "
                "class. Received: labels whose rows do not sum to 1: several "
                f"classes, none, or values that are not classes. {_OWN}"
            )
        labels = labels.argmax(-1)
    if labels.size != outputs[..., 0].size:
        raise ValueError(
            "Accuracy requires one label for each row of outputs. Received: "
            f"labels of shape {labels.shape}, outputs of shape "
            f"{outputs.shape}. {_OWN}"
        )
    labels = labels.reshape(outputs.shape[:-1])
    classes = outputs.shape[-1]
    if not np.isin(labels, np.arange(classes)).all():
        raise ValueError(
            "Labels must be class numbers, starting at 0. Received: labels "
            f"from {labels.min()} to {labels.max()}, where the model has "
            f"{classes} outputs. {_OWN}"
        )
    return float(np.mean(outputs.argmax(-1) == labels))


def _of_probabilities(labels, outputs):
    """Returns the share of labels, 0 or 1, that a probability agrees with."""
    are_labels = labels.size == outputs.size and np.isin(labels, (0, 1)).all()
    if not are_labels or outputs.min() < 0 or outputs.max() > 1:
        raise ValueError(
            "For a single output, accuracy requires probabilities and labels "
            f"0 and 1. Received: outputs from {outputs.min():.3g} to "
            f"{outputs.max():.3g}, labels of shape {labels.shape} from "
            f"{labels.min():.3g} to {labels.max():.3g}. {_OWN}"
        )
    return float(np.mean((outputs > 0.5).ravel() == labels.ravel()))


def named_labels(labels, names):
    """Returns the name of the output that labels belong to, and the labels."""
    if isinstance(labels, dict) and len(labels) == 1:
        [(name, labels)] = labels.items()
        if name in names:
            return name, labels
    elif len(names) == 1 and not isinstance(labels, dict):
        return names[0], labels
    raise ValueError(
        "Accuracy is computed for one output. Received: labels for "
        f"{list(labels) if isinstance(labels, dict) else 'no output by name'}, "
        f"where the model has the outputs {names}. Pass a dict from the name "
        "of one output to its labels, or `None` to measure no accuracy."
    )


def keras_outputs(network, flat, output, model=None):
    """Returns one output of a Keras model for all examples."""

    def run(batches):
        return network.outputs(batches, model)

    signature = network.signature
    return _all(run, signature, flat, output, signature.batch_size)


def litert_outputs(path, signature, flat, output):
    """Returns one output of a TFLite file for all examples."""
    signature = signature.in_float32()
    with quiet():
        run, details = load_runner(path)
        shapes = [
            detail.get("shape_signature", detail["shape"])
            for detail in details.values()
        ]
        fixed = all(len(shape) and shape[0] > 0 for shape in shapes)
        return _all(
            lambda batches: (run(signature.feed(batch)) for batch in batches),
            *(signature, flat, output, int(shapes[0][0]) if fixed else None),
        )


def saved_model_outputs(directory, signature, flat, output):
    """Returns one output of a SavedModel for all examples."""
    import tensorflow as tf

    with quiet():
        loaded = tf.saved_model.load(directory)
        serve = loaded.signatures["serving_default"]

    def run(batches):
        for batch in batches:
            yield serve(**signature.named_tensors(batch))

    return _all(run, signature, flat, output, signature.batch_size)


def _all(run, signature, flat, output, size):
    """Runs all examples in batches of equal size, one after the other.

    Inputs that are no batch of examples, such as graphs, are run as a whole.
    The size is `None` if any batch size is possible.
    """
    if not signature.is_batched(flat):
        [found] = run([flat])
        return np.asarray(as_array(found[output]))
    count, size = len(flat[0]), size or _BATCH
    # The last batch repeats examples, so that all batches have one size.
    starts = range(0, count, size)
    firsts = [max(0, min(start, count - size)) for start in starts]
    batches = [[x[first : first + size] for x in flat] for first in firsts]
    outputs = []
    for start, first, found in zip(starts, firsts, run(batches), strict=True):
        values = np.array(as_array(found[output]))
        outputs.append(values[start - first :])
    return np.concatenate(outputs)
