"""Export to a sparse TFLite file."""

import contextlib
import os
import shutil
from pathlib import Path

import numpy as np

from tf_gems.export import flatbuffer
from tf_gems.export import forms
from tf_gems.export.compacted import compacted
from tf_gems.export.compacted import refuse_if_unknown
from tf_gems.export.conversion import convert
from tf_gems.export.conversion import random_numbers_named
from tf_gems.export.conversion import traced_or_refused
from tf_gems.export.network import Network
from tf_gems.export.network import computed_in_float32
from tf_gems.export.network import kept_patterns
from tf_gems.export.parity import doubts
from tf_gems.export.parity import refuse_non_finite
from tf_gems.export.paths import Stored
from tf_gems.export.paths import check_target
from tf_gems.export.paths import check_tolerance
from tf_gems.export.progress import Progress
from tf_gems.export.quantized import check_quantized
from tf_gems.export.quantized import is_quantized
from tf_gems.export.quantized import output_steps
from tf_gems.export.quantized import refuse_floats
from tf_gems.export.quiet import quiet
from tf_gems.export.report import ExportReport
from tf_gems.export.trial import Trial
from tf_gems.files import replacing_path
from tf_gems.files import workplace
from tf_gems.half_precision import HALF_TOLERANCE
from tf_gems.validation import check_bool
from tf_gems.validation import check_choice
from tf_gems.validation import check_integer


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
    """Writes a TFLite file that stores only the kept weights where it can.

    The model itself is traced with `training=False`, including its look-up
    tables, adapted statistics, attributes and states. TensorFlow's converter
    runs in a child process, so that a crash of the converter raises an error.
    Before the file is moved to `path`, it is run with and without XNNPACK, and
    its outputs are compared with those of the Keras model and of a dense twin.
    A weight is stored sparsely if that is smaller and known to run. The other
    weights are stored densely, and the report says why. The forms are:

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
    `representative_data`, or with those that a
    `tf_gems.QuantizationAwareModel` has learned, which has no other form. Its
    inputs and outputs are floats. Dense layers in
    blocks are smaller but slower than those that are stored densely. If sparse
    weights could make XNNPACK compute wrong outputs on another machine, all
    weights are stored densely, in any form.

    Args:
        model: `tf_gems.SparseModel`, or plain Keras model with zeros in its
            weights. It is left as it is.
        path: String or path that ends in `.tflite`. A file there is replaced.
        inputs: Inputs to compare outputs on, as the model takes them.
            Defaults to `None`: the representative data, or random ones, the
            same each time.
        form: `"float32"`, `"float16"`, `"dynamic_int8"` or `"int8"`. Defaults
            to `"float32"`.
        representative_data: Inputs, as the model takes them, from which
            `"int8"` learns the ranges of activations: a hundred real
            examples or more. A `tf_gems.QuantizationAwareModel` has its
            ranges and is only compared on them. Defaults to `None`.
        batch_size: Integer that the file is fixed to. Defaults to `None`:
            the one that the model declares, or any, which LiteRT allows for
            most networks; for others it is 1, and the report says so.
        optimize: `"size"`: the smallest file; weights are expanded when it
            is loaded. `"latency"`, for `"float32"` only: `Dense` kernels with
            more than about 95 % zeros are stored in blocks of four and stay
            sparse while the model runs, which is faster for single examples.
            Defaults to `"size"`.
        tolerance: Float, the largest difference of outputs that is accepted,
            as a fraction of the largest output. Defaults to `None`: as in the
            table, and at least 1e-2 and 5e-2 for networks that compute in
            float16 and bfloat16, which the file does in float32.
        io: `"float32"`, or `"int8"` for a file of `form="int8"` whose inputs
            and outputs are 8-bit integers, too, as microcontrollers and other
            devices without floats want it. Defaults to `"float32"`.
        sparse: Whether to store zeros sparsely. Pass `False` for devices
            whose runtime has no `DENSIFY` operator. Defaults to `True`.
        compact: Whether to remove the channels that zeros have cut off
            first, as `tf_gems.compact` does. The file is compared with the
            model that was passed in, and so are its bytes. Defaults to
            `False`.

    Returns:
        `tf_gems.ExportReport`.

    Raises:
        OSError: If `path` cannot be written.
        RuntimeError: If nothing has been pruned yet, if Keras does not run on
            TensorFlow, if the network has no such form that runs, or if the
            outputs of the file differ. The message names the layer, if it is
            known.
        ValueError: If an argument is out of range, the model is not a built
            Keras 3 model, its weights or outputs are not finite, or it is to
            be compacted and its graph is not known.

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
        io,
        sparse,
        compact,
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

    Args:
        model: As for `export_litert`, and so are the others.
        finish: Function of the `Attempt` and of a directory, called before
            anything is written. It may change the bytes that are written.
            Defaults to `None`.
    """
    check_target(path)
    path = os.fspath(path)
    if not path.endswith(".tflite"):
        raise ValueError(
            "A TFLite file's name ends in '.tflite'. "
            f"Received: path={path!r}. Did you mean {path + '.tflite'!r}?"
        )
    form = forms.get(form)
    quantized = is_quantized(model)
    if quantized:
        check_quantized(form, compact)
    _check_arguments(form, optimize, representative_data is None, io, quantized)
    if batch_size is not None:
        check_integer(batch_size, "batch_size", 1, 1 << 20)
    check_tolerance(tolerance)
    check_bool(sparse, "sparse")
    check_bool(compact, "compact")
    given_inputs = representative_data if inputs is None else inputs
    network = Network(model, given_inputs, quantized=True)
    if compact:
        refuse_if_unknown(network.user_model)
    examples = None
    if representative_data is not None:
        examples = calibration_data(network.signature, representative_data)
    given = (
        None
        if given_inputs is None
        else network.signature.flatten(given_inputs)
    )
    failure = None
    with (
        Progress(path) as progress,
        workplace(Path(os.path.realpath(path))) as inside,
    ):
        for sizes in _sizes_to_try(network.signature, batch_size, given):
            attempt = Attempt(
                network, form, optimize, sizes, progress, io, sparse, compact
            )
            try:
                attempt.run(path, given, examples, tolerance, inside)
                break
            except RuntimeError as error:
                failure = error
                if getattr(error, "final", False):
                    raise
        else:
            raise failure
        if sizes and not network.signature.batch_size and batch_size is None:
            # The lists of states of recurrent layers need a known batch size.
            attempt.notes.append(
                "TFLite needs a fixed batch size for this network: the file "
                f"takes {_plural(sizes)} at a time."
            )
        if finish is not None:
            finish(attempt, inside)
        with replacing_path(path) as partial:
            partial.write_bytes(attempt.data)
            report = attempt.report(path, partial)
        report.written = Stored(path)
    return report, attempt.dense


class Attempt:
    """One try to write a network, for one batch size.

    Args:
        network: `Network`.
        form: `forms.Form`.
        optimize: See `export_litert`.
        sizes: `None` for any batch size, else a list of the sizes of the
            first axis of each input.
        progress: `Progress`.
        io, sparse, compact: See `export_litert`.

    Attributes:
        data: Bytes, what is to be written.
        dense: Bytes of the dense twin.
        trial: `Trial` that ran it, with its inputs and what Keras computes.
        parity: `Parity` of both.
        ran: List of strings, what ran it.
    """

    def __init__(
        self, network, form, optimize, sizes, progress, io, sparse, compact
    ):
        self.network = network
        self.form = form
        self.optimize = optimize
        self.progress = progress
        self.io = io
        self.sparse = sparse
        self.compact = compact
        self.compaction = None
        self.signature = network.signature.with_sizes(sizes).in_float32()
        self.size = sizes and sizes[0]
        self.notes = []

    def run(self, path, given, examples, tolerance, inside):
        """Converts the network and runs the file.

        Raises:
            RuntimeError: If the file does not run, or is not right.
        """
        network, notes = self.network, self.notes
        if given is None:
            given = network.examples(4 * (self.size or 1))
        self.progress.step("running the Keras model")
        batches, expected = _expected(network, given, self.size)
        calibrated = []
        learned = network.quantized  # its ranges are known
        if examples is not None and self.form.name == "int8" and not learned:
            calibrated = [
                self.signature.feed(batch)
                for batch in _batches(self.signature, examples, self.size or 1)
            ]
        with network.masked() as plain:
            self.dense, found = self._converted(plain, calibrated, inside)
            data = self.dense
            if self.compact:
                self.progress.step("removing channels")
                with random_numbers_named(self.traced):
                    plain, self.compaction = compacted(
                        plain, network.signature, given
                    )
                data, found = self._converted(plain, calibrated, inside)
            self.patterns = kept_patterns(plain)
        notes += found
        if tolerance is None:
            tolerance = max(
                self.form.tolerance, HALF_TOLERANCE[network.half_precision]
            )
        feeds = [self.signature.feed(batch) for batch in batches]
        trial = Trial(path, self.form, tolerance, feeds, expected, inside)
        self.trial = trial
        self.progress.step("running the file")
        with random_numbers_named(self.traced):
            twin, parity = trial.dense(data)
        self.data, self.parity, self.reasons = data, parity, {}
        if self.sparse:
            self.progress.step("storing its zeros")
            self.data, self.parity, self.reasons = trial.choose(
                data, twin, parity, self.optimize, notes
            )
        self.ran = trial.ran
        if learned:
            refuse_floats(self.data, network.name)
            notes.append(_agreement(self.parity, output_steps(self.data)))
        notes += doubts(expected)
        if any("int8" in reason for reason in self.reasons.values()):
            notes.append(
                "form='float16' also stores weights sparsely that LiteRT "
                "cannot run sparse in 8 bits. It may be smaller."
            )
        if not self.ran[0].startswith("ai_edge_litert"):
            notes.append(
                "It was run by TensorFlow's own interpreter. Install "
                "`tf_gems[litert]` to run it as devices do."
            )

    def _converted(self, plain, calibrated, inside):
        """Returns a file of a Keras model with dense weights, and notes."""
        notes = []
        directory = os.path.join(inside, "graph")
        self.progress.step("tracing the network")
        with computed_in_float32(plain) as types:
            if types:
                notes.append(
                    f"The network computes in {' and '.join(types)}, the file "
                    "in float32."
                )
            self.traced = traced = traced_or_refused(plain, self.signature)
            notes += traced.notes()
            with quiet():
                traced.save(directory)
        self.progress.step("converting it")
        try:
            data = convert(traced, directory, self.form, calibrated, self.io)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        return data, notes

    def report(self, path, written):
        """Returns the `ExportReport`."""
        return ExportReport(
            path=path,
            format="litert",
            written=Stored(written),
            twin=Stored.of_bytes(self.dense),
            tensors=flatbuffer.describe(
                flatbuffer.read(self.data), self.patterns, self.reasons
            ),
            largest_difference=self.parity.difference,
            largest_output=self.parity.magnitude,
            ran=self.ran,
            notes=self.notes,
            form=self.form.name,
            compaction=self.compaction,
        )


def calibration_data(signature, data):
    """Returns representative data as a flat list of arrays, if it is finite.

    Raises:
        ValueError: If it does not fit, or holds NaN or infinite values.
    """
    flat = signature.flatten(data)
    for value, spec in zip(flat, signature.specs, strict=True):
        if "float" in spec.dtype and not np.isfinite(value).all():
            raise ValueError(
                "The ranges of 8-bit activations are learned from finite "
                "examples. Received: representative_data with NaN or infinite "
                f"values for input '{spec.name}'. Leave such examples out."
            )
    return flat


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
                f"{declared}. Leave it out, or build the model for another."
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
            "LiteRT computes NaN, or garbage, from blocks of weights that are "
            f"not float32. Received: optimize='latency', form={form.name!r}. "
            "Pass form='float32', or optimize='size'."
        )
    check_choice(io, "io", ("float32", "int8"))
    if io == "int8" and form.name != "int8":
        raise ValueError(
            "Only a file that computes in 8-bit integers takes and returns "
            f"them. Received: io='int8', form={form.name!r}. Pass form='int8'."
        )
    if form.name == "int8" and no_data and not quantized:
        other = ", or form='dynamic_int8', which needs none"
        raise ValueError(
            "The ranges of 8-bit activations are learned from examples. "
            "Received: representative_data=None. Pass a hundred real inputs "
            f"or more{other if io == 'float32' else ''}."
        )


def _agreement(parity, step):
    """Says how far a file is from the fake-quantized Keras model."""
    steps = round(parity.difference / step) if step else 0
    plural = "step" if steps == 1 else "steps"
    return (
        "The ranges of activations are those of the quantization-aware model. "
        f"Outputs differ from it by {steps} {plural} of {step:.3g} at most."
    )


def _expected(network, given, batch_size):
    """Returns batches to try, and what the Keras model computes for them."""
    count = len(given[0]) if np.ndim(given[0]) else 1
    signature = network.signature
    if not signature.is_batched(given):
        batches = [given]
    elif batch_size is None:
        batches = _batches(signature, given, count or 1)
    else:
        batches = _batches(signature, given, batch_size)
    if not batches:
        raise ValueError(
            "`inputs` must hold a batch of examples at least. Received: "
            f"inputs of {count} examples, batch_size={batch_size}. Pass more."
        )
    expected = network.outputs(batches)
    refuse_non_finite(expected, network.name)
    if batch_size is None and signature.is_batched(given) and count > 1:
        # Try another batch size too, unless the first axis is not a batch.
        one = _batches(signature, given, 1)[:1]
        with contextlib.suppress(Exception):
            expected = expected + network.outputs(one)
            batches = batches + one
    return batches, expected


def _batches(signature, flat, size):
    """Splits inputs into full batches, and drops the remainder."""
    if not signature.is_batched(flat):
        return [flat]
    count = len(flat[0])
    return [
        [x[start : start + size] for x in flat]
        for start in range(0, count - size + 1, size)
    ]
