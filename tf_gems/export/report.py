"""What an export wrote and ran."""

import dataclasses
import math

from tf_gems.compaction import CompactionReport
from tf_gems.export.paths import Stored
from tf_gems.tables import DataReport
from tf_gems.tables import Table


@dataclasses.dataclass
class ExportReport(DataReport):
    """The files of an export, their sizes, and their difference from Keras.

    Compressed sizes are measured when they are first read, because this takes
    longer than the export itself.

    Args:
        path: String, path of the file or directory.
        format: `"litert"`, `"saved_model"` or `"gem"`.
        written: `tf_gems.export.paths.Stored`, the sizes of the export.
        twin: The same for the dense twin, which is the network in the same
            format, without any use of its zeros.
        tensors: List of dicts, one for each weight that was written: `name`,
            `shape`, `type`, `zeros`, `encoding` (`"sparse"` or `"dense"`),
            `bytes` and `reason`, the reason if it is dense, or `None`.
        largest_difference: Float, the largest absolute difference from the
            Keras model, for the output with the largest relative difference.
        largest_output: Float, the largest absolute value of that output.
        ran: List of strings, the programs that ran the export.
        notes: List of strings, further information for the user.
        form: String, how the weights are stored. Defaults to `"float32"`.
        compaction: `tf_gems.compaction.CompactionReport` of the channels that
            were removed first. Defaults to `None`, without `compact=True`.

    Example:

    ```python
    report = tf_gems.export_litert(sparse, "model.tflite")
    print(report)
    ```
    """

    path: str
    format: str
    written: Stored
    twin: Stored
    tensors: list
    largest_difference: float
    largest_output: float
    ran: list
    notes: list
    form: str = "float32"
    compaction: CompactionReport | None = None
    _computed = (
        *("zeros", "bytes", "gzip_bytes", "zstd_bytes"),
        *("dense_bytes", "dense_gzip_bytes", "dense_zstd_bytes"),
    )

    @property
    def bytes(self):
        """Size of the export."""
        return self.written.bytes

    @property
    def dense_bytes(self):
        """Size of the dense twin."""
        return self.twin.bytes

    @property
    def gzip_bytes(self):
        """Size of the export after gzip."""
        return self.written.gzip_bytes

    @property
    def dense_gzip_bytes(self):
        """Size of the dense twin after gzip."""
        return self.twin.gzip_bytes

    @property
    def zstd_bytes(self):
        """Size of the export after zstd, or `None`."""
        return self.written.zstd_bytes

    @property
    def dense_zstd_bytes(self):
        """Size of the dense twin after zstd, or `None`."""
        return self.twin.zstd_bytes

    @property
    def zeros(self):
        """Number of zeros in the weights."""
        return sum(tensor["zeros"] for tensor in self.tensors)

    def to_dict(self):
        """Returns the report as plain, JSON-serializable values.

        It measures the compressed sizes, which takes minutes for large
        networks.
        """
        plain = super().to_dict()
        del plain["written"], plain["twin"]
        return plain

    def reasons(self):
        """Returns a sentence for each reason to store weights densely."""
        names = {}
        for tensor in self.tensors:
            if tensor["reason"]:
                names.setdefault(tensor["reason"], []).append(tensor["name"])
        return [
            f"Stored densely because {reason}: {', '.join(weights)}."
            for reason, weights in names.items()
        ]

    def _parts(self):
        columns = ["weight", ">shape", ">zeros", "type", "encoding", ">bytes"]
        rows = []
        for tensor in self.tensors:
            shape, zeros = tuple(tensor["shape"]), tensor["zeros"]
            share = f"{zeros:,} ({zeros / math.prod(shape):4.0%})"
            row = [tensor["name"], shape, share, tensor["type"]]
            rows.append([*row, tensor["encoding"], f"{tensor['bytes']:,}"])
        parts = [
            Table(columns, rows),
            f"{self.path} ({self.format}, {self.form})",
            f"  {self.bytes:,} bytes, {self.bytes / self.dense_bytes:.1%} of "
            f"the dense twin's {self.dense_bytes:,}",
        ]
        if self.written.compressed and self.twin.compressed:
            share = self.gzip_bytes / self.dense_gzip_bytes
            parts.append(
                f"  {self.gzip_bytes:,} bytes by gzip, {share:.1%} of "
                f"{self.dense_gzip_bytes:,}"
            )
        if self.compaction is not None:
            parameters = self.compaction.parameters
            work = self.compaction.multiply_adds
            parts.append(
                f"compact: {parameters[1]:,} of {parameters[0]:,} parameters "
                f"and {work[1]:,} of {work[0]:,} multiply-adds remain"
            )
            if self.compaction.kept:
                names = ", ".join(self.compaction.kept)
                parts.append(f"  not made compact, see `compaction`: {names}")
        return [
            *parts,
            f"  outputs up to {self.largest_output:.4g} differ from Keras by "
            f"at most {self.largest_difference:.2g}",
            f"  ran: {'; '.join(self.ran)}",
            *(f"  note: {note}" for note in self.notes + self.reasons()),
        ]
