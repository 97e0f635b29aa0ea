"""What an export wrote and ran."""

import dataclasses


@dataclasses.dataclass
class ExportReport:
    """What was written, how large it is, and that it computes the same.

    Args:
        path: String, what was written.
        format: `"litert"` or `"saved_model"`.
        bytes: Integer, size of what was written.
        gzip_bytes: Integer, its size compressed by gzip.
        dense_bytes: Integer, size of the dense twin: the network in the same
            format without any use of its zeros.
        dense_gzip_bytes: Integer, its size compressed by gzip.
        tensors: List of dicts, one for each weight that was written: `name`,
            `shape`, `zeros`, `encoding` (`"sparse"` or `"dense"`) and
            `bytes`.
        largest_difference: Float, the largest absolute difference between
            outputs of the Keras model and of what was written.
        largest_output: Float, the largest absolute output of the Keras model.
        ran: List of strings, the programs that ran what was written.
        notes: List of sentences on what a user should know.

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
            f"{'encoding':>8}  {'bytes':>11}"
        ]
        for tensor in self.tensors:
            size = 1
            for length in tensor["shape"]:
                size *= length
            zeros = f"{tensor['zeros']:,} ({tensor['zeros'] / size:4.0%})"
            lines.append(
                f"{tensor['name']:<{width}}  "
                f"{tuple(tensor['shape'])!s:>18}  {zeros:>16}  "
                f"{tensor['encoding']:>8}  {tensor['bytes']:>11,}"
            )
        lines += [
            f"{self.path} ({self.format})",
            f"  {self.bytes:,} bytes, {self.bytes / self.dense_bytes:.1%} of "
            f"the dense twin's {self.dense_bytes:,}",
            f"  {self.gzip_bytes:,} bytes by gzip, "
            f"{self.gzip_bytes / self.dense_gzip_bytes:.1%} of "
            f"{self.dense_gzip_bytes:,}",
            f"  outputs up to {self.largest_output:.4g} differ from Keras by "
            f"at most {self.largest_difference:.2g}",
            f"  ran: {'; '.join(self.ran)}",
            *(f"  note: {note}" for note in self.notes),
        ]
        return "\n".join(lines)

    __str__ = render
