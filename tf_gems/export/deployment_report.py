"""What a network costs in every form it was exported to."""

import dataclasses

from tf_gems.tables import Report
from tf_gems.tables import Table


@dataclasses.dataclass
class DeploymentReport(Report):
    """Bytes, accuracy, parity and latency of a network by form.

    Args:
        name: String, the name of the network.
        examples: Integer, the examples that accuracy was measured on.
        accuracy: Float, that of the Keras model, or `None` without labels.
        sparse_host: Whether XNNPACK uses its sparse kernels on the machine
            that measured; `None` if unknown.
        rows: List of dicts, one for each form: `form`; `refused`, why nothing
            was written, or `None`; `export`, the `tf_gems.ExportReport`;
            `accuracy`; `seconds` and `dense_seconds`, the median time of one
            example, this file's and its dense twin's, run in turns;
            `emulated_seconds` and `emulated_dense_seconds`, on an emulated
            processor without AVX, where that was tried; and `layers`, see
            `tf_gems.export.sparse_operators`.

    Example:

    ```python
    report = tf_gems.deployment_report(sparse, "exported", (images, labels))
    print(report)
    ```
    """

    name: str
    examples: int
    accuracy: float | None
    sparse_host: bool | None
    rows: list

    def to_dict(self):
        """Returns the report as plain, JSON-serializable values."""
        rows = [
            {**row, "export": row["export"] and row["export"].to_dict()}
            for row in self.rows
        ]
        return {**vars(self), "rows": rows}

    def _parts(self):
        written = [row for row in self.rows if row["export"]]
        sizes = [line for row in written for line in _size_lines(row)]
        columns = ["form", "", ">bytes", ">gzip", ">zstd", ">zeros"]
        title = "no labels were given, so no accuracy was measured."
        if self.accuracy is not None:
            title = f"Keras' accuracy is {self.accuracy:.2%} on "
            title += f"{self.examples:,} examples."
        parts = [
            f"{self.name}: {title}",
            "",
            Table([*columns, ">accuracy", ">parity"], sizes),
        ]
        if any(row["seconds"] for row in written):  # none with `runs=0`
            columns = ["form", ">sparse ms", ">dense ms", ">dense/sparse"]
            # A ticket is read once, whatever its sparsity.
            timed = [row for row in written if row["form"] != "gem"]
            parts += [
                "",
                "Median time of one example, alternating with the twin:",
                Table([*columns, ">emulated"], map(_time_line, timed)),
            ]
        if any(row["emulated_seconds"] for row in written):
            parts.append(
                "emulated: dense/sparse on an emulated processor without AVX, "
                "which compares amounts of work, not times of a device."
            )
        host = {
            True: "This processor has XNNPACK's sparse kernels.",
            False: "This processor has AVX: XNNPACK's sparse kernels are off.",
            None: "Whether XNNPACK has sparse kernels here is not known.",
        }[self.sparse_host]
        parts += ["", f"Why, layer by layer. {host}"]
        columns = ["weights", "operator", ">zeros", "sparse", "why"]
        for row in written:
            if row["layers"]:
                lines = map(_layer_line, row["layers"])
                parts += [f"{row['form']}:", Table(columns, lines)]
        parts.append("")
        for row in written:
            notes = row["export"].notes + row["export"].reasons()
            parts += [f"note, {row['form']}: {note}" for note in notes]
        return parts + [
            f"not written, {row['form']}: {row['refused']}"
            for row in self.rows
            if row["refused"]
        ]


def _size_lines(row):
    """Returns a line for what was written, and one for its dense twin."""
    export = row["export"]
    share = export.largest_difference / (export.largest_output or 1.0)
    is_sparse = any(t["encoding"] == "sparse" for t in export.tensors)
    lines = [
        [
            *(row["form"], "sparse" if is_sparse else "dense"),
            *map(_number, export.written.sizes),
            f"{export.zeros:,}",
            "-" if row["accuracy"] is None else f"{row['accuracy']:.2%}",
            f"{share:.1e}",
        ]
    ]
    if is_sparse:
        sizes = map(_number, export.twin.sizes)
        lines.append(["", "dense twin", *sizes, "", "", ""])
    return lines


def _time_line(row):
    if row["seconds"] is None:
        return [row["form"], "-", "-", "the same file", "-"]
    ratio = row["dense_seconds"] / row["seconds"]
    emulated = "-"
    if row["emulated_seconds"]:
        faster = row["emulated_dense_seconds"] / row["emulated_seconds"]
        emulated = f"{faster:.2f}"
    times = [f"{1e3 * row[x]:.3f}" for x in ("seconds", "dense_seconds")]
    return [row["form"], *times, f"{ratio:.2f}", emulated]


def _layer_line(layer):
    zeros = f"{layer['zeros']:.1%}"
    line = [layer["layer"][-40:], layer["operator"], zeros]
    return [*line, layer["runs_sparse"], layer["reason"]]


def _number(value):
    return "-" if value is None else f"{value:,}"
