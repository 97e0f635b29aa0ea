"""Export to a sparse TFLite file."""

import itertools
import os
from pathlib import Path

import keras
import numpy as np

from tf_gems.export import forms
from tf_gems.export.attempt import Attempt
from tf_gems.export.network import Network
from tf_gems.export.paths import Stored
from tf_gems.export.paths import check_target
from tf_gems.export.progress import Progress
from tf_gems.export.quantized import check_quantized
from tf_gems.export.quantized import is_quantized
from tf_gems.export.report import ExportReport
from tf_gems.files import replacing_path
from tf_gems.files import workplace
from tf_gems.training_data import is_indexed
from tf_gems.training_data import read
from tf_gems.validation import check_bool
from tf_gems.validation import check_choice
from tf_gems.validation import check_integer

# How much of a dataset is read: batches, and examples.
_BATCHES, _EXAMPLES = 100, 1000


def export_litert(
    model,
    path,
    inputs=None,
    form="float32",
    representative_data=None,
    batch_size=None,
    optimize="size",
    tolerance=None,
    io="float32",
    sparse=True,
    compact=False,
) -> ExportReport:
    """Writes a TFLite file that stores weights sparsely where possible.

    The model itself is traced with `training=False`, including its look-up
    tables, adapted statistics, attributes and states. TensorFlow's converter
    runs in a child process, so that a crash of the converter raises an error.
    Before the file is moved to `path`, it is run with and without XNNPACK, and
    its outputs are compared with those of the Keras model and of a dense twin.
    A weight is stored sparsely if that is smaller and known to run. The other
    weights are stored densely, and the report says why. The forms are:

    * `"float32"`: all weights can be stored sparsely. The tolerance of the
      comparison is 1e-4.
    * `"float16"`: convolutions and dense layers can be stored sparsely, but
      not transposed convolutions, from which LiteRT computes NaN. The
      tolerance is 1e-2.
    * `"dynamic_int8"`: depthwise and transposed convolutions can be stored
      sparsely; LiteRT does not load other sparse weights. The tolerance is
      1e-1.
    * `"int8"`: all convolutions can be stored sparsely, and dense layers with
      a multiple of 16 inputs, in blocks of 16, if that is smaller. The
      tolerance is 1e-1.

    `"float16"` stores weights in half precision and computes in float32.
    `"dynamic_int8"` stores them as 8-bit integers and quantizes activations at
    run time. `"int8"` computes in 8-bit integers, with ranges taken from
    `representative_data`. A `tf_gems.QuantizationAwareModel` has learned its
    ranges and is exported in this form only. Dense layers in blocks are
    smaller but slower than those that are stored densely. If sparse
    weights could make XNNPACK compute wrong outputs on another machine, all
    weights are stored densely, in any form.

    Args:
        model: `tf_gems.SparseModel`, or plain Keras model with zeros in its
            weights. It is not changed.
        path: String or path that ends in `.tflite`. An existing file is
            replaced.
        inputs: Inputs of the model on which outputs are compared. Defaults to
            `None`: the representative data, or random inputs from a fixed
            seed.
        form: `"float32"`, `"float16"`, `"dynamic_int8"` or `"int8"`. Defaults
            to `"float32"`.
        representative_data: Inputs of the model for calibrating the ranges of
            activations with `"int8"`, a hundred real examples or more: arrays,
            or a dataset or generator of batches as for `fit`, of which the
            first 100 are read, or those with the first 1,000 examples. A
            `tf_gems.QuantizationAwareModel` has its own ranges and is only
            compared on these inputs. Defaults to `None`.
        batch_size: Integer, the fixed batch size of the file. Defaults to
            `None`: the batch size that the model declares, otherwise any size.
            If LiteRT requires a fixed size for the network, it is 1, and the
            report says so.
        optimize: `"size"`: the smallest file; weights are expanded when it
            is loaded. `"latency"`, for `"float32"` only: `Dense` kernels with
            more than about 95 % zeros are stored in blocks of four and stay
            sparse at run time, which is faster for single examples.
            Defaults to `"size"`.
        tolerance: Float, the largest accepted difference of outputs, as a
            fraction of the largest output. Defaults to `None`: the tolerance
            of the form, and at least 1e-2 and 5e-2 for networks that compute
            in float16 and bfloat16, because the file computes in float32.
        io: `"float32"`, or `"int8"` for a file of `form="int8"` whose inputs
            and outputs are 8-bit integers too, which microcontrollers and
            other devices without floating-point units require. Defaults to
            `"float32"`.
        sparse: Whether to store zeros sparsely. Pass `False` for devices
            whose runtime has no `DENSIFY` operator. Defaults to `True`.
        compact: Whether to first remove the channels that zeros disconnect, as
            `tf_gems.compact` does. The outputs and the size of the file are
            compared with those of the original model. Defaults to `False`.

    Returns:
        `tf_gems.ExportReport`.

    Raises:
        OSError: If `path` cannot be written.
        RuntimeError: If nothing has been pruned yet, if Keras does not run on
            TensorFlow, if LiteRT cannot run the network in this form, or if
            the outputs of the file differ. The message names the layer, if it
            is known.
        ValueError: If an argument is out of range, the model is not a built
            Keras 3 model, its weights or outputs are not finite, or `compact`
            is `True` and the graph of the model is not known.

    Example:

    ```python
    report = tf_gems.export_litert(sparse, "model.tflite", inputs=images)
    print(report)
    ```
    """
    report, _ = write_litert(
        *(model, path, inputs, form, representative_data, batch_size),
        *(optimize, tolerance, io, sparse, compact),
    )
    return report


def write_litert(
    model,
    path,
    inputs,
    form,
    representative_data=None,
    batch_size=None,
    optimize="size",
    tolerance=None,
    io="float32",
    sparse=True,
    compact=False,
    finish=None,
):
    """Implements `export_litert`; also returns the bytes of the dense twin.

    `finish` is called with the `Attempt` before anything is written. It may
    change the bytes that are written, and the report.
    """
    check_target(path)
    path = os.fspath(path)
    if not path.endswith(".tflite"):
        raise ValueError(
            "The name of a TFLite file must end in '.tflite'. Received: "
            f"path={path!r}. Did you mean {path + '.tflite'!r}?"
        )
    form = forms.get(form)
    quantized = is_quantized(model)
    if quantized:
        check_quantized(form, compact)
    _check_arguments(form, optimize, representative_data is None, io, quantized)
    if batch_size is not None:
        check_integer(batch_size, "batch_size", 1, 1 << 20)
    check_bool(sparse, "sparse")
    representative_data = gathered(representative_data)
    given = representative_data if inputs is None else inputs
    network = Network(model, given, compact, eight_bits=True)
    tolerance = network.tolerance(tolerance, form.tolerance)
    examples = None
    if representative_data is not None:
        examples = calibration_data(network.signature, representative_data)
    if given is not None:
        given = network.signature.flatten(given)
    with (
        Progress(path) as progress,
        workplace(Path(os.path.realpath(path))) as inside,
    ):
        tries = _sizes_to_try(network.signature, batch_size, given)
        for sizes in tries:
            attempt = Attempt(
                *(network, path, form, tolerance, sizes, optimize, io),
                *(sparse, compact, progress, inside),
            )
            try:
                attempt.run(given, examples)
                break
            except RuntimeError as error:
                if sizes is tries[-1] or getattr(error, "final", False):
                    raise
        if sizes is not tries[0]:
            # The lists of states of recurrent layers need a known batch size.
            attempt.notes.append(
                "TFLite requires a fixed batch size for this network: the "
                f"file takes {_plural(sizes)} at a time."
            )
        if finish is not None:
            finish(attempt)
        with replacing_path(path) as partial:
            partial.write_bytes(attempt.data)
            report = attempt.report(partial)
        report.written = Stored(path)
    return report, attempt.dense


def gathered(data):
    """Returns the inputs of the first examples of a dataset as arrays.

    These are the batches up to `_EXAMPLES` examples, and `_BATCHES` at most.
    What is no dataset or generator is returned as it is.

    Raises:
        ValueError: If it yields nothing.
    """
    arrays = hasattr(data, "shape") or isinstance(data, dict | list | tuple)
    if arrays or not (hasattr(data, "__iter__") or is_indexed(data)):
        return data
    batches, count = [], 0
    for batch in itertools.islice(read(data), _BATCHES):
        batches.append(batch[0])
        count += len(keras.tree.flatten(batch[0])[0])
        if count >= _EXAMPLES:
            break
    if not batches:
        raise ValueError(
            "The ranges of 8-bit activations are learned from examples. "
            f"Received: representative_data={data!r:.80}, which yields no "
            "batch. Pass a hundred real inputs or more."
        )
    return keras.tree.map_structure(
        lambda *parts: np.concatenate([np.asarray(part) for part in parts]),
        *batches,
    )


def calibration_data(signature, data):
    """Returns representative data as a flat list of arrays, if it is finite."""
    flat = signature.flatten(data)
    for value, spec in zip(flat, signature.specs, strict=True):
        if "float" in spec.dtype and not np.isfinite(value).all():
            raise ValueError(
                "The ranges of 8-bit activations are calibrated with finite "
                "examples. Received: representative_data with NaN or "
                f"infinite values for input '{spec.name}'. Remove these "
                "examples."
            )
    return flat


def write_int8(
    model, path, inputs, representative_data, tolerance, compact, finish
):
    """Writes a file of 8-bit integers alone, of one example, not sparse."""
    return write_litert(
        *(model, path, inputs, "int8", representative_data),
        batch_size=1,
        tolerance=tolerance,
        io="int8",
        sparse=False,
        compact=compact,
        finish=finish,
    )


def _sizes_to_try(signature, batch_size, given):
    """Returns the sizes of first axes to try; `None` means any size.

    TFLite needs a fixed batch size for some networks. Inputs that are not a
    batch of examples, such as the nodes and edges of a graph, then get the
    sizes of the given inputs.
    """
    declared = signature.batch_size
    count = len(signature.specs)
    if declared is not None:
        if batch_size not in (None, declared):
            raise ValueError(
                "A model that declares its batch size is exported with it. "
                f"Received: batch_size={batch_size}, where the model declares "
                f"{declared}. Leave it out, or build the model with another "
                "batch size."
            )
        return [[declared] * count]
    if batch_size is not None:
        return [[batch_size] * count]
    if given is None or signature.is_batched(given):
        return [None, [1] * count]
    return [None, [len(x) if np.ndim(x) else None for x in given]]


def _plural(sizes):
    if len(set(sizes)) > 1:
        return f"inputs of {sizes} rows"
    return "one example" if sizes[0] == 1 else f"{sizes[0]} examples"


def _check_arguments(form, optimize, no_data, io, quantized):
    check_choice(optimize, "optimize", ("size", "latency"))
    if optimize == "latency" and form.name != "float32":
        raise ValueError(
            "LiteRT computes NaN or wrong outputs from blocks of weights "
            "that are not float32. Received: optimize='latency', "
            f"form={form.name!r}. Pass form='float32', or optimize='size'."
        )
    check_choice(io, "io", ("float32", "int8"))
    if io == "int8" and form.name != "int8":
        raise ValueError(
            "8-bit inputs and outputs require a file that computes in 8-bit "
            f"integers. Received: io='int8', form={form.name!r}. Pass "
            "form='int8'."
        )
    if form.name == "int8" and no_data and not quantized:
        other = ", or form='dynamic_int8', which needs no data"
        raise ValueError(
            "The ranges of 8-bit activations are calibrated with examples. "
            "Received: representative_data=None. Pass a hundred real inputs "
            f"or more{other if io == 'float32' else ''}."
        )
