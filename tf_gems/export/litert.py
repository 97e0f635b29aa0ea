"""Export to a sparse TFLite file."""

import os

import keras

from tf_gems.export import flatbuffer
from tf_gems.export import forms
from tf_gems.export.comparison import doubts
from tf_gems.export.comparison import example_inputs
from tf_gems.export.comparison import named_inputs
from tf_gems.export.conversion import batches
from tf_gems.export.conversion import convert
from tf_gems.export.network import computed_in_float32
from tf_gems.export.network import plain_network
from tf_gems.export.paths import check_target
from tf_gems.export.paths import sizes
from tf_gems.export.report import ExportReport
from tf_gems.export.trial import Trial
from tf_gems.validation import check_choice


def export_litert(
    model,
    path,
    inputs=None,
    form="float32",
    representative_data=None,
    batch_size=None,
    optimize="size",
    tolerance=None,
):
    """Writes a TFLite file that stores only the kept weights where it can.

    The file is run, with and without XNNPACK, and its outputs are compared
    with those of the Keras model and with those of its dense twin, before it
    is given its name: a file at `path` was right on this machine. A weight is
    stored sparsely if that is smaller and is known to run; the others are
    stored densely, and the report says why. The forms:

    | form | stored sparsely | tolerance |
    | --- | --- | --- |
    | `"float32"` | every weight | 1e-4 |
    | `"float16"` | convolutions and dense layers; not transposed
      convolutions, from which LiteRT computes NaN | 1e-2 |
    | `"dynamic_int8"` | depthwise and transposed convolutions: LiteRT loads
      no others | 1e-1 |
    | `"int8"` | convolutions of all kinds; dense layers with a multiple of
      16 inputs, in blocks of 16, where that is smaller | 1e-1 |

    `"float16"` stores weights in half precision and computes in float32.
    `"dynamic_int8"` stores them as 8-bit integers and rounds activations
    while it runs. `"int8"` computes in 8-bit integers with ranges taken from
    `representative_data`; its inputs and outputs are still floats, and dense
    layers in blocks are smaller, but slower than those that are stored
    densely. Where sparse weights could make XNNPACK wrong on another machine,
    all are stored densely, in any form.

    Args:
        model: `tf_gems.SparseModel`, which is stripped first, or plain Keras
            model with zeros in its weights.
        path: String or path that ends in `.tflite`. A file there is replaced.
        inputs: Inputs to compare outputs on, as the model takes them.
            Defaults to `None`: the representative data, or random ones, the
            same each time.
        form: `"float32"`, `"float16"`, `"dynamic_int8"` or `"int8"`. Defaults
            to `"float32"`.
        representative_data: Inputs, as the model takes them, from which
            `"int8"` learns the ranges of activations: a hundred real
            examples or more. Defaults to `None`.
        batch_size: Integer that the file is fixed to. Defaults to `None`:
            any, which LiteRT allows for most networks; for others it is 1, and
            the report says so.
        optimize: `"size"`: the smallest file; weights are expanded when it
            is loaded. `"latency"`, for `"float32"` only: `Dense` kernels with
            more than about 95 % zeros are stored in blocks of four and stay
            sparse while the model runs, which is faster for single examples.
            Defaults to `"size"`.
        tolerance: Float, the largest difference of outputs that is accepted,
            as a fraction of the largest output. Defaults to `None`: as in the
            table.

    Returns:
        `tf_gems.ExportReport`.

    Raises:
        OSError: If `path` cannot be written.
        RuntimeError: If nothing has been pruned yet, if Keras does not run on
            TensorFlow, if the network has no such form that runs, or if the
            file computes something else.
        ValueError: If an argument is out of range, or the model is not a
            built Keras 3 model.

    Example:

    ```python
    report = tf_gems.export_litert(sparse, "model.tflite", inputs=images)
    print(report)
    ```
    """
    report, _ = write_litert(
        model,
        path,
        inputs,
        form,
        representative_data,
        batch_size,
        optimize,
        tolerance,
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
):
    """Does what `export_litert` does; returns the dense twin's bytes, too."""
    check_target(path)
    path = os.fspath(path)
    if not path.endswith(".tflite"):
        raise ValueError(
            "A TFLite file's name ends in '.tflite'. "
            f"Received: path={path!r}. Did you mean {path + '.tflite'!r}?"
        )
    form = forms.get(form)
    _check_arguments(form, optimize, representative_data)
    plain, signature = plain_network(model, inputs)
    notes = []

    def arguments(data):
        return [data] if len(signature) == 1 else list(data)

    examples = None
    if representative_data is not None:
        examples = arguments(representative_data)
    with computed_in_float32(plain) as changed:
        if changed:
            notes.append("The network computes in float32 here.")
        dense, batch_size = convert(
            plain, signature, form, examples, batch_size, notes
        )
        if inputs is not None:
            tried = arguments(inputs)
        else:
            tried = examples or example_inputs(signature, 4 * (batch_size or 1))
        fed = _cut(tried, batch_size)
        expected = [plain(*batch, training=False) for batch in fed]
    trial = Trial(path, [named_inputs(signature, batch) for batch in fed])
    if tolerance is None:
        tolerance = form.tolerance
    data, comparison, reasons = trial.choose(
        form, dense, optimize, expected, tolerance, notes
    )
    if any("int8" in reason for reason in reasons.values()):
        notes.append(
            "form='float16' stores the weights that LiteRT does not run sparse "
            "in 8 bits sparsely; it may be smaller."
        )
    if not trial.ran[0].startswith("ai_edge_litert"):
        notes.append(
            "It was run by TensorFlow's own interpreter. Install "
            "`tf_gems[litert]` to run it as devices do."
        )
    notes += doubts(expected)
    size, gzip_size, zstd_size = sizes(data)
    dense_size, dense_gzip_size, dense_zstd_size = sizes(dense)
    report = ExportReport(
        path=path,
        format="litert",
        bytes=size,
        gzip_bytes=gzip_size,
        zstd_bytes=zstd_size,
        dense_bytes=dense_size,
        dense_gzip_bytes=dense_gzip_size,
        dense_zstd_bytes=dense_zstd_size,
        tensors=flatbuffer.describe(
            flatbuffer.read(data), plain.weights, reasons
        ),
        largest_difference=comparison.difference,
        largest_output=comparison.magnitude,
        ran=trial.ran,
        notes=notes,
        form=form.name,
    )
    return report, dense


def _check_arguments(form, optimize, representative_data):
    check_choice(optimize, "optimize", ("size", "latency"))
    if optimize == "latency" and form.name != "float32":
        raise ValueError(
            "LiteRT computes NaN, or garbage, from blocks of weights that are "
            f"not float32. Received: optimize='latency', form={form.name!r}. "
            "Pass form='float32', or optimize='size'."
        )
    if form.name == "int8" and representative_data is None:
        raise ValueError(
            "The ranges of 8-bit activations are learned from examples. "
            "Received: form='int8', representative_data=None. Pass a hundred "
            "real inputs or more, or form='dynamic_int8', which needs none."
        )


def _cut(arguments, batch_size):
    """Cuts inputs into the batches to try."""
    count = len(keras.tree.flatten(arguments)[0])
    if batch_size is None:
        cuts = [*batches(arguments, count or 1), *batches(arguments, 1)[:1]]
    else:
        cuts = batches(arguments, batch_size)
    if not cuts:
        raise ValueError(
            "`inputs` must hold a batch of examples at least. Received: "
            f"inputs of {count} examples, batch_size={batch_size}. Pass more."
        )
    return cuts
