"""What an export wrote and ran."""

import copy
import dataclasses
import math

from tf_gems.compaction import CompactionReport
from tf_gems.export.paths import Stored
from tf_gems.tables import Report
from tf_gems.tables import Table


@dataclasses.dataclass
class ExportReport(Report):
    """What was written, how large it is, and that it computes the same.

    Compressed sizes are measured when they are first read, as that takes
    longer than the export itself.

    Args:
        path: String, what was written.
        format: `"litert"`, `"saved_model"` or `"gem"`.
        written: `tf_gems.export.paths.Stored`, what was written.
        twin: The same for the dense twin: the network that was passed in, in
            the same format without any use of its zeros.
        tensors: List of dicts, one for each weight that was written: `name`,
            `shape`, `type`, `zeros`, `encoding` (`"sparse"` or `"dense"`),
            `bytes` and `reason`: why it is dense, or `None`.
        largest_difference: Float, the largest absolute difference between
            an output of the Keras model and of what was written. Of several
            outputs, the one with the largest relative difference.
        largest_output: Float, the largest absolute value of that output.
        ran: List of strings, the programs that ran what was written.
        notes: List of sentences on what a user should know.
        form: String, how the weights are stored. Defaults to `"float32"`.
        compaction: `tf_gems.compaction.CompactionReport` of the channels that
            were removed first. Defaults to `None`: none were to be.

    Attributes:
        bytes: Integer, size of what was written.
        dense_bytes: Integer, size of the dense twin.
        gzip_bytes, dense_gzip_bytes: Integers, sizes compressed by gzip.
        zstd_bytes, dense_zstd_bytes: Integers, sizes compressed by zstd, or
            `None` where `zstandard` is not installed.

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

    @property
    def bytes(self):
        """Size of what was written."""
        return self.written.bytes

    @property
    def dense_bytes(self):
        """Size of the dense twin."""
        return self.twin.bytes

    @property
    def gzip_bytes(self):
        """Size of what was written, compressed by gzip."""
        return self.written.gzip_bytes

    @property
    def dense_gzip_bytes(self):
        """Size of the dense twin, compressed by gzip."""
        return self.twin.gzip_bytes

    @property
    def zstd_bytes(self):
        """Size of what was written, compressed by zstd, or `None`."""
        return self.written.zstd_bytes

    @property
    def dense_zstd_bytes(self):
        """Size of the dense twin, compressed by zstd, or `None`."""
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
        plain = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if field.name not in ("written", "twin", "compaction")
        }
        plain["compaction"] = self.compaction and self.compaction.to_dict()
        for name in ("bytes", "gzip_bytes", "zstd_bytes"):
            plain[name] = getattr(self, name)
            plain[f"dense_{name}"] = getattr(self, f"dense_{name}")
        return {**copy.deepcopy(plain), "zeros": self.zeros}

    def _parts(self):
        rows = []
        for tensor in self.tensors:
            share = tensor["zeros"] / math.prod(tensor["shape"])
            rows.append(
                [
                    *(tensor["name"], tuple(tensor["shape"])),
                    f"{tensor['zeros']:,} ({share:4.0%})",
                    *(tensor["type"], tensor["encoding"]),
                    f"{tensor['bytes']:,}",
                ]
            )
        return [
            Table(
                ["weight", ">shape", ">zeros", "type", "encoding", ">bytes"],
                rows,
            ),
            f"{self.path} ({self.format}, {self.form})",
            f"  {self.bytes:,} bytes, {self.bytes / self.dense_bytes:.1%} of "
            f"the dense twin's {self.dense_bytes:,}",
            *self._compressed(),
            *self._compacted(),
            f"  outputs up to {self.largest_output:.4g} differ from Keras by "
            f"at most {self.largest_difference:.2g}",
            f"  ran: {'; '.join(self.ran)}",
            *(f"  note: {note}" for note in self.notes + self.reasons()),
        ]

    def _compressed(self):
        """Returns the line on compressed sizes, if they were measured."""
        if not (self.written.compressed and self.twin.compressed):
            return []
        return [
            f"  {self.gzip_bytes:,} bytes by gzip, "
            f"{self.gzip_bytes / self.dense_gzip_bytes:.1%} of "
            f"{self.dense_gzip_bytes:,}"
        ]

    def _compacted(self):
        """Returns the line on the channels that were removed, if any."""
        if self.compaction is None:
            return []
        before, after = zip(
            self.compaction.parameters,
            self.compaction.multiply_adds,
            strict=True,
        )
        lines = [
            f"  compact: {after[0]:,} of {before[0]:,} parameters and "
            f"{after[1]:,} of {before[1]:,} multiply-adds are left"
        ]
        if self.compaction.kept:
            names = ", ".join(self.compaction.kept)
            lines.append(f"  not made compact, see `compaction`: {names}")
        return lines

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
