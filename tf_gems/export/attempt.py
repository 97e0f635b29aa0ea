"""One try to write a network as a TFLite file, run before it is written."""

import contextlib
import dataclasses
import functools
import os

import numpy as np

from tf_gems import parity
from tf_gems.export import conversion
from tf_gems.export import flatbuffer
from tf_gems.export import forms
from tf_gems.export import quantized
from tf_gems.export import weight_rows
from tf_gems.export import worker
from tf_gems.export import xnnpack
from tf_gems.export.conversion import causes_named
from tf_gems.export.conversion import random_numbers_named
from tf_gems.export.network import Network
from tf_gems.export.network import other_types
from tf_gems.export.paths import Stored
from tf_gems.export.progress import Progress
from tf_gems.export.report import ExportReport
from tf_gems.export.sparsify import SMALLER
from tf_gems.export.sparsify import sparsify

# Fewer examples are named where outputs differ too much.
_ENOUGH = 100


@dataclasses.dataclass
class Attempt:
    """One try to write a network, for one batch size.

    `sizes` are those of the first axis of each input, `None` for any batch
    size; other arguments are as for `export_litert`.

    Attributes:
        data: Bytes, what is to be written.
        dense: Bytes of the dense twin.
        feeds: List of dicts from names to arrays, the inputs it was run on.
        expected: List of dicts from names to arrays, what Keras computes.
        parity: `Parity` of the outputs.
        calibrated: Integer, how many examples ranges were learned from.
        rows: Dict from the place of each weight to a row of the report.
        ran: List of strings, what ran it.
        notes: List of sentences.
    """

    network: Network
    path: str
    form: forms.Form
    tolerance: float
    sizes: list | None
    optimize: str
    io: str
    sparse: bool
    compact: bool
    progress: Progress
    inside: str

    def run(self, given, examples):
        """Converts the network and runs the file."""
        network = self.network
        self.signature = network.signature.with_sizes(self.sizes).in_float32()
        self.notes, self.compaction = [], None
        size = self.sizes and self.sizes[0]
        if given is None:
            given = network.examples(4 * (size or 1))
        self.progress.step("running the Keras model")
        batches, self.expected = _expected(network, given, size)
        self.feeds = [self.signature.feed(batch) for batch in batches]
        calibrated, self.calibrated = [], 0
        # The ranges of a quantization-aware model are known.
        if examples and self.form.name == "int8" and not network.quantized:
            self.calibrated = len(examples[0]) if np.ndim(examples[0]) else 1
            calibrated = [
                self.signature.feed(batch)
                for batch in _all_batches(self.signature, examples, size or 1)
            ]
        data, names = self._convert(given, calibrated)
        self.progress.step("running the file")
        with causes_named(self.traced):
            outputs = self._run_dense(data)
        self.data, reasons = data, {}
        if self.sparse:
            self.progress.step("storing its zeros")
            self.data, reasons = self._encoded(data, outputs)
        self.rows = weight_rows.rows(flatbuffer.read(self.data), names, reasons)
        self._explain(reasons.values())

    def _convert(self, given, examples):
        """Returns the file with dense weights, and the names of these."""
        convert = functools.partial(
            conversion.convert,
            signature=self.signature,
            form=self.form,
            examples=examples,
            io=self.io,
            progress=self.progress,
            inside=self.inside,
        )
        with self.network.masked() as plain:
            types = other_types(plain)
            if types:
                self.notes.append(
                    f"The network computes in {' and '.join(types)}, and the "
                    "file in float32."
                )
            data, self.traced = convert(plain)
            self.dense = data
            if self.compact:
                self.progress.step("removing channels")
                with random_numbers_named(self.traced):
                    plain, self.compaction = self.network.compacted(
                        plain, given
                    )
                data, self.traced = convert(plain)
            self.notes += self.traced.notes()
            return data, weight_rows.names_of(flatbuffer.read(data), plain)

    def run_file(self, data, run=worker.run):
        """Returns what a function of `worker` returns for a file's bytes."""
        path = os.path.join(self.inside, "candidate.tflite")
        with open(path, "wb") as file:
            file.write(data)
        seconds = worker.seconds_for(len(data), 4 * len(self.feeds))
        return run(path, self.feeds, seconds)

    def _run_dense(self, data):
        """Runs and compares the dense file; returns its outputs."""
        try:
            outputs, self.ran = self.run_file(data)
        except worker.WorkerError as error:
            remedy = "Nothing was written."
            if self.form.alternative is not None:
                remedy += f" Pass form={self.form.alternative!r}."
            raise RuntimeError(
                "An export must run. Received: a file that LiteRT cannot "
                f"run, path={self.path!r}, form={self.form.name!r}: "
                f"{_reason(error)}. {remedy}"
            ) from error
        self.compare(outputs, data)
        return outputs

    def compare(self, outputs, data):
        """Compares each way of running a file with the Keras model."""
        self.parity = parity.worst(
            parity.measure_batches(self.expected, way) for way in outputs
        )
        what, remedy = f"path={self.path!r}", None
        if self.form.name == "int8" and not self.parity.within(self.tolerance):
            remedy = self._remedy_of_integers(data)
        self.parity.refuse_above(self.tolerance, what, remedy)

    def _remedy_of_integers(self, data):
        step = quantized.output_step(flatbuffer.read(data))
        if step / 2 > self.tolerance * self.parity.magnitude:
            return (
                f"An 8-bit output changes in steps of {step:.3g}, that of a "
                "softmax always in steps of 1/256. Export the model without "
                "its last activation, or once it is trained."
            )
        if 0 < self.calibrated < _ENOUGH:
            return (
                "The ranges of activations are those of "
                f"{self.calibrated} examples. Pass a hundred real inputs or "
                "more as `representative_data`. If the model is very "
                "sensitive to rounding, raise `tolerance`."
            )
        return None

    def _encoded(self, dense, outputs):
        """Returns the sparse file, if it computes the same as the dense one.

        It returns `(data, reasons)`: what to write, and why weights are dense.
        """
        file = flatbuffer.read(dense)
        unsafe = xnnpack.reason_against_sparse(file)
        if unsafe is not None:
            self.notes.append(
                "XNNPACK may compute wrong outputs with sparse weights, as "
                f"{unsafe}; this happens on ARM, and on x86 without AVX. "
                "Weights that XNNPACK reads are stored densely."
            )
        count, reasons = sparsify(file, unsafe is None, self.optimize)
        data = flatbuffer.write(file) if count else dense
        if len(data) >= len(dense):
            if unsafe is None and set(reasons.values()) <= {SMALLER}:
                self.notes.append(
                    "No weight has enough zeros to be stored sparsely."
                )
            return dense, reasons
        try:
            found, self.ran = self.run_file(data)
        except worker.WorkerError as error:
            failure = f"LiteRT cannot run them: {_reason(error)}"
        else:
            beside = parity.worst(
                parity.measure_batches(ours, theirs)
                for ours, theirs in zip(outputs, found, strict=True)
            )
            if beside.within(self.form.sparse_tolerance):
                self.compare(found, data)
                return data, reasons
            failure = (
                "with sparse weights, the outputs of LiteRT differ by "
                f"{beside.difference:.3g}"
            )
        self.notes.append(f"No weight is stored sparsely: {failure}.")
        return dense, {}

    def _explain(self, reasons):
        """Adds notes on how the file was run and compared."""
        if self.form.name == "int8":
            self._explain_integers(flatbuffer.read(self.data))
        self.notes += parity.doubts(self.expected)
        if any("int8" in reason for reason in reasons):
            self.notes.append(
                "With form='float16', weights that LiteRT cannot run sparse "
                "in 8 bits are stored sparsely too. That file may be "
                "smaller."
            )
        if not self.ran[0].startswith("ai_edge_litert"):
            self.notes.append(
                "The file was run by TensorFlow's own interpreter. Install "
                "`tf_gems[litert]` to run it as devices do."
            )

    def _explain_integers(self, file):
        """Adds notes on what is an 8-bit integer, and what is not."""
        floats = ", ".join(sorted(quantized.float_operators(file)))
        if self.network.quantized:
            quantized.refuse_floats(floats, self.network.name)
            step = quantized.output_step(file)
            steps = round(self.parity.difference / step) if step else 0
            self.notes.append(
                "The ranges of activations are those of the "
                "quantization-aware model. Outputs differ from it by at most "
                f"{steps} {'step' if steps == 1 else 'steps'} of {step:.3g}."
            )
        elif floats:
            self.notes.append(
                "TensorFlow's converter leaves some operators in floats: "
                f"{floats}."
            )
        if self.io == "int8":
            self.notes += quantized.describe_integers(file)

    def report(self, written):
        """Returns the `ExportReport` of the file at the path `written`."""
        return ExportReport(
            path=self.path,
            format="litert",
            written=Stored(written),
            twin=Stored.of_bytes(self.dense),
            tensors=list(self.rows.values()),
            largest_difference=self.parity.difference,
            largest_output=self.parity.magnitude,
            ran=self.ran,
            notes=self.notes,
            form=self.form.name,
            compaction=self.compaction,
        )


def _reason(error):
    """Returns what a `WorkerError` says, on one line."""
    if error.crashed:
        return f"its interpreter {error.crashed}"
    return " ".join(str(error).split()).rstrip(".")


def _expected(network, given, batch_size):
    """Returns batches to try, and what the Keras model computes for them."""
    count = len(given[0]) if np.ndim(given[0]) else 1
    signature = network.signature
    batches = _batches(signature, given, batch_size or count or 1)
    if not batches:
        raise ValueError(
            "`inputs` must contain at least one batch of examples. Received: "
            f"inputs of {count} examples, batch_size={batch_size}. Pass more."
        )
    expected = network.expected(batches)
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


def _all_batches(signature, flat, size):
    """Splits inputs into full batches; the first ones fill the last one."""
    if signature.is_batched(flat):
        count = len(flat[0])
        rows = np.arange(-(-count // size) * size) % count
        flat = [x[rows] for x in flat]
    return _batches(signature, flat, size)
