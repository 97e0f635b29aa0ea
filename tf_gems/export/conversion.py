"""Conversion of a Keras network to a TFLite file with dense weights."""

import tempfile

import keras
import numpy as np

from tf_gems.export.comparison import named_inputs
from tf_gems.export.network import with_batch_size
from tf_gems.export.quiet import quiet


def convert(plain, signature, form, examples, batch_size, notes):
    """Returns a TFLite file's bytes, and the batch size it takes.

    Args:
        plain: Keras model.
        signature: List of structures of `keras.InputSpec`.
        form: `forms.Form`.
        examples: List of arguments of the model, to calibrate on, or `None`.
        batch_size: Integer, or `None` for any. For networks whose batch
            size TFLite cannot leave open it is then 1.
        notes: List of sentences, added to.

    Raises:
        RuntimeError: If the network has no such form.
    """
    with quiet():
        from tensorflow.lite.python.convert_phase import ConverterError
    sizes = [None, 1] if batch_size is None else [batch_size]
    for size in sizes:
        try:
            data = _convert_once(plain, signature, form, examples, size)
        except (ConverterError, RuntimeError, ValueError) as error:
            failure = error
            continue
        if size != batch_size:
            # Recurrent layers: their lists of states need a known size.
            notes.append(
                "TFLite cannot leave the batch size of this network open: the "
                "file takes one example at a time."
            )
        return data, size
    if form.alternative is None:
        raise failure
    raise RuntimeError(
        "An export must run. Received: a network that TensorFlow cannot "
        f"convert to form={form.name!r}: {_first_line(failure)} Pass "
        f"form={form.alternative!r}."
    ) from failure


def _convert_once(plain, signature, form, examples, batch_size):
    import tensorflow as tf

    signature = with_batch_size(signature, batch_size)
    with tempfile.TemporaryDirectory() as directory, quiet():
        plain.export(
            directory,
            format="tf_saved_model",
            verbose=False,
            input_signature=signature,
        )
        converter = tf.lite.TFLiteConverter.from_saved_model(directory)
        if form.name != "float32":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if form.name == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if form.name == "int8":
            converter.representative_dataset = lambda: (
                named_inputs(signature, batch)
                for batch in batches(examples, batch_size or 1)
            )
        return converter.convert()


def batches(arguments, size):
    """Cuts arguments of a model into batches; leaves out what is left over."""
    count = len(keras.tree.flatten(arguments)[0])
    return [
        keras.tree.map_structure(
            lambda x, start=start: np.asarray(x)[start : start + size],
            arguments,
        )
        for start in range(0, count - size + 1, size)
    ]


def _first_line(error):
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
