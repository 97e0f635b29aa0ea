"""What an export wrote and ran."""

import dataclasses


@dataclasses.dataclass
class ExportReport:
    """What was written, how large it is, and that it computes the same.

    Args:
        path: String, what was written.
        format: `"litert"`, `"saved_model"` or `"gem"`.
        bytes: Integer, size of what was written.
        gzip_bytes: Integer, its size compressed by gzip.
        dense_bytes: Integer, size of the dense twin: the network in the same
            format without any use of its zeros.
        dense_gzip_bytes: Integer, its size compressed by gzip.
        tensors: List of dicts, one for each weight that was written: `name`,
            `shape`, `type`, `zeros`, `encoding` (`"sparse"` or `"dense"`),
            `bytes` and `reason`: why it is dense, or `None`.
        largest_difference: Float, the largest absolute difference between
            outputs of the Keras model and of what was written.
        largest_output: Float, the largest absolute output of the Keras model.
        ran: List of strings, the programs that ran what was written.
        notes: List of sentences on what a user should know.
        form: String, how the weights are stored. Defaults to `"float32"`.
        zstd_bytes: Integer, the size compressed by zstd, or `None` where
            `zstandard` is not installed. Defaults to `None`.
        dense_zstd_bytes: The same of the dense twin. Defaults to `None`.

    Example:

    ```python
    report = tf_gems.export_litert(sparse, "model.tflite")
    print(report)
    ```
    """

    path: str
    format: str
    bytes: int
    gzip_bytes: int
    dense_bytes: int
    dense_gzip_bytes: int
    tensors: list
    largest_difference: float
    largest_output: float
    ran: list
    notes: list
    form: str = "float32"
    zstd_bytes: int | None = None
    dense_zstd_bytes: int | None = None

    @property
    def zeros(self):
        """Number of zeros in the weights."""
        return sum(tensor["zeros"] for tensor in self.tensors)

    def to_dict(self):
        """Returns the report as plain, JSON-serialisable values."""
        return {**dataclasses.asdict(self), "zeros": self.zeros}

    def render(self):
        """Returns the report as a table for people."""
        width = max([6, *(len(t["name"]) for t in self.tensors)])
        lines = [
            f"{'weight':<{width}}  {'shape':>18}  {'zeros':>16}  "
            f"{'type':>8}  {'encoding':>8}  {'bytes':>11}"
        ]
        for tensor in self.tensors:
            size = 1
            for length in tensor["shape"]:
                size *= length
            zeros = f"{tensor['zeros']:,} ({tensor['zeros'] / size:4.0%})"
            lines.append(
                f"{tensor['name']:<{width}}  "
                f"{tuple(tensor['shape'])!s:>18}  {zeros:>16}  "
                f"{tensor['type']:>8}  {tensor['encoding']:>8}  "
                f"{tensor['bytes']:>11,}"
            )
        lines += [
            f"{self.path} ({self.format}, {self.form})",
            f"  {self.bytes:,} bytes, {self.bytes / self.dense_bytes:.1%} of "
            f"the dense twin's {self.dense_bytes:,}",
            f"  {self.gzip_bytes:,} bytes by gzip, "
            f"{self.gzip_bytes / self.dense_gzip_bytes:.1%} of "
            f"{self.dense_gzip_bytes:,}",
            f"  outputs up to {self.largest_output:.4g} differ from Keras by "
            f"at most {self.largest_difference:.2g}",
            f"  ran: {'; '.join(self.ran)}",
            *(f"  note: {note}" for note in self.notes + self.reasons()),
        ]
        return "\n".join(lines)

    def reasons(self):
        """Returns a sentence for each reason to store weights densely."""
        names = {}
        for tensor in self.tensors:
            if tensor["reason"]:
                names.setdefault(tensor["reason"], []).append(tensor["name"])
        return [
            f"Dense, as {reason}: {', '.join(weights)}."
            for reason, weights in names.items()
        ]

    __str__ = render
