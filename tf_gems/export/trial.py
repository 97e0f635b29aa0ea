"""Runs TFLite files before one of them is given its name."""

import os

from tf_gems.export import flatbuffer
from tf_gems.export import worker
from tf_gems.export import xnnpack
from tf_gems.export.parity import measure_parity
from tf_gems.export.parity import worst
from tf_gems.export.sparsify import SMALLER
from tf_gems.export.sparsify import sparsify


class Trial:
    """Runs candidates beside a path, in a process of their own.

    Args:
        path: String.
        form: `forms.Form`.
        tolerance: Float, see `export_litert`.
        feeds: List of dicts from names to arrays.
        expected: List of dicts from names to arrays, what Keras computes.
        inside: String, a folder for the candidates.
    """

    def __init__(self, path, form, tolerance, feeds, expected, inside):
        self.path = path
        self.form = form
        self.tolerance = tolerance
        self.feeds = feeds
        self.expected = expected
        self.candidate = os.path.join(inside, "candidate.tflite")
        self.ran = []

    def dense(self, data):
        """Runs the dense file; returns its outputs and how they compare.

        Raises:
            RuntimeError: If it does not run, or computes something else.
        """
        try:
            outputs = self._run(data)
        except worker.WorkerError as error:
            raise RuntimeError(
                "An export must run. Received: a file that LiteRT cannot "
                f"run, path={self.path!r}, form={self.form.name!r}: "
                f"{_flat(error)}. {_advice(self.form)}"
            ) from error
        parity = _compared(self.expected, outputs)
        parity.refuse_above(self.tolerance, f"path={self.path!r}")
        return outputs, parity

    def choose(self, dense, twin, parity, optimize, notes):
        """Returns the sparse file if it is as right as the dense one.

        Args:
            dense: Bytes.
            twin: Outputs of the dense file.
            parity: `Parity` of those.
            optimize: See `export_litert`.
            notes: List of sentences, added to.

        Returns:
            `(data, parity, reasons)`: what to write, how it compares with
            Keras, and why weights are dense, see `sparsify`.
        """
        data, reasons = _encode(dense, optimize, notes)
        if data is dense:
            return dense, parity, reasons
        failure = None
        try:
            outputs = self._run(data)
        except worker.WorkerError as error:
            failure = f"LiteRT cannot run them: {_flat(error)}"
        else:
            beside = worst(
                [
                    _compared(ours, [theirs])
                    for ours, theirs in zip(twin, outputs, strict=True)
                ]
            )
            if not beside.within(self.form.sparse_tolerance):
                failure = (
                    "with them LiteRT computes something else, by "
                    f"{beside.difference:.3g}"
                )
        if failure is None:
            parity = _compared(self.expected, outputs)
            parity.refuse_above(self.tolerance, f"path={self.path!r}")
            return data, parity, reasons
        notes.append(f"No weight is stored sparsely: {failure}.")
        return dense, parity, {}

    def _run(self, data):
        """Returns the outputs of each way to run a file, see `run_litert`."""
        with open(self.candidate, "wb") as file:
            file.write(data)
        seconds = worker.seconds_for(len(data), 4 * len(self.feeds))
        outputs, self.ran = worker.run(self.candidate, self.feeds, seconds)
        return outputs


def _compared(expected, received):
    """Compares each way of running a file with what is expected."""
    return worst(
        [
            measure_parity(ours, theirs)
            for outputs in received
            for ours, theirs in zip(expected, outputs, strict=True)
        ]
    )


def _flat(error):
    if error.crashed:
        return f"its interpreter {error.crashed}"
    return " ".join(str(error).split()).rstrip(".")


def _advice(form):
    if form.alternative is None:
        return "Nothing was written."
    return f"Nothing was written. Pass form={form.alternative!r}."


def _encode(dense, optimize, notes):
    """Returns a file with its zeros stored sparsely, and why some are not."""
    file = flatbuffer.read(dense)
    reason = xnnpack.reason_against_sparse(file)
    if reason is not None:
        notes.append(
            f"XNNPACK may compute garbage with sparse weights, as {reason}; "
            "on ARM, and on x86 without AVX. Weights that it reads are dense."
        )
    count, reasons = sparsify(file, reason is None, optimize)
    if count:
        sparse = flatbuffer.write(file)
        if len(sparse) < len(dense):
            return sparse, reasons
    if reason is None and set(reasons.values()) <= {SMALLER}:
        notes.append("No weight has enough zeros to be stored sparsely.")
    return dense, reasons
