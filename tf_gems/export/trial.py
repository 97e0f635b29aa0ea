"""Runs TFLite files before one of them is given its name."""

from tf_gems.export import flatbuffer
from tf_gems.export import xnnpack
from tf_gems.export.comparison import compare
from tf_gems.export.comparison import worst
from tf_gems.export.run_litert import run_litert
from tf_gems.export.sparsify import sparsify
from tf_gems.files import replacing_path


class Trial:
    """Runs candidates beside a path, and renames the one that is right.

    Args:
        path: String.
        feeds: List of dicts from names to arrays.
    """

    def __init__(self, path, feeds):
        self.path = path
        self.feeds = feeds
        self.ran = []

    def choose(self, form, dense, optimize, expected, tolerance, notes):
        """Writes the sparse file if it is as right as the dense one.

        Returns:
            `(data, comparison, reasons)`: what was written, how it compares
            with Keras, and why weights are dense, see `sparsify`.
        """
        with replacing_path(self.path) as partial:
            try:
                twin = self._run(partial, dense)
            except (RuntimeError, ValueError) as error:
                raise RuntimeError(
                    "An export must run. Received: a file that LiteRT cannot "
                    f"run, path={self.path!r}, form={form.name!r}: "
                    f"{_flat(error)}. {_advice(form)}"
                ) from error
            comparison = _compared(expected, twin)
            comparison.refuse_above(tolerance, f"path={self.path!r}")
            data, reasons = _encode(dense, optimize, notes)
            if data is not dense:
                failure = None
                try:
                    outputs = self._run(partial, data)
                except (RuntimeError, ValueError) as error:
                    failure = f"LiteRT cannot run them: {_flat(error)}"
                else:
                    beside = worst(
                        [
                            _compared(ours, [theirs])
                            for ours, theirs in zip(twin, outputs, strict=True)
                        ]
                    )
                    if not beside.within(form.sparse_tolerance):
                        failure = (
                            "with them LiteRT computes something else, by "
                            f"{beside.difference:.3g}"
                        )
                if failure is None:
                    comparison = _compared(expected, outputs)
                    comparison.refuse_above(tolerance, f"path={self.path!r}")
                else:
                    notes.append(f"No weight is stored sparsely: {failure}.")
                    data, reasons = dense, {}
                    self._write(partial, dense)
        return data, comparison, reasons

    def _write(self, partial, data):
        with open(partial, "wb") as file:
            file.write(data)

    def _run(self, partial, data):
        """Returns the outputs of each way to run a file, see `run_litert`."""
        self._write(partial, data)
        outputs, self.ran = run_litert(str(partial), self.feeds)
        return outputs


def _compared(expected, received):
    """Compares each way of running a file with what is expected."""
    return worst(
        [
            compare(ours, theirs)
            for outputs in received
            for ours, theirs in zip(expected, outputs, strict=True)
        ]
    )


def _flat(error):
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
    if reason is None:
        notes.append("No weight has zeros enough to be stored sparsely.")
    return dense, reasons
