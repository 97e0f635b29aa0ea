"""What a network costs in every form it was exported to."""

import dataclasses


@dataclasses.dataclass
class DeploymentReport:
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
        """Returns the report as plain, JSON-serialisable values."""
        rows = [
            {**row, "export": row["export"] and row["export"].to_dict()}
            for row in self.rows
        ]
        return {**vars(self), "rows": rows}

    def render(self):
        """Returns the report as tables for people."""
        written = [row for row in self.rows if row["export"]]
        lines = [f"{self.name}: {self._of_keras()}", ""]
        lines += _table(
            [
                "form",
                "",
                "bytes",
                "gzip",
                "zstd",
                "zeros",
                "accuracy",
                "parity",
            ],
            [
                line
                for row in written
                for line in _size_lines(row, row["export"])
            ],
        )
        if any(row["seconds"] for row in written):  # none with `runs=0`
            lines += ["", "Median time of one example, in turns with the twin:"]
            lines += _table(
                ["form", "sparse ms", "dense ms", "dense/sparse", "emulated"],
                # What is read once is no slower or faster for being sparse.
                [_time_line(row) for row in written if row["form"] != "gem"],
            )
        if any(row["emulated_seconds"] for row in written):
            lines.append(
                "emulated: dense/sparse on an emulated processor without AVX, "
                "which counts work; it is no device's time."
            )
        lines += self._why(written)
        for row in written:
            notes = row["export"].notes + row["export"].reasons()
            lines += [f"note, {row['form']}: {note}" for note in notes]
        lines += [
            f"not written, {row['form']}: {row['refused']}"
            for row in self.rows
            if row["refused"]
        ]
        return "\n".join(lines)

    __str__ = render

    def _of_keras(self):
        if self.accuracy is None:
            return "no labels were given, so no accuracy was measured."
        return (
            f"Keras' accuracy is {self.accuracy:.2%} on {self.examples:,} "
            "examples."
        )

    def _why(self, written):
        host = {
            True: "This processor has XNNPACK's sparse kernels.",
            False: "This processor has AVX: XNNPACK's sparse kernels are off.",
            None: "Whether XNNPACK has sparse kernels here is not known.",
        }[self.sparse_host]
        lines = ["", f"Why, layer by layer. {host}"]
        for row in written:
            if not row["layers"]:
                continue
            lines += [f"{row['form']}:"]
            lines += _table(
                ["weights", "operator", "zeros", "sparse", "why"],
                [
                    [
                        layer["layer"][-40:],
                        layer["operator"],
                        f"{layer['zeros']:.1%}",
                        layer["runs_sparse"],
                        layer["reason"],
                    ]
                    for layer in row["layers"]
                ],
                left=(0, 1, 3, 4),
            )
        return [*lines, ""]


def _size_lines(row, export):
    """Returns a line for what was written, and one for its dense twin."""
    share = export.largest_difference / (export.largest_output or 1.0)
    is_sparse = any(t["encoding"] == "sparse" for t in export.tensors)
    lines = [
        [
            row["form"],
            "sparse" if is_sparse else "dense",
            f"{export.bytes:,}",
            f"{export.gzip_bytes:,}",
            _number(export.zstd_bytes),
            f"{export.zeros:,}",
            "-" if row["accuracy"] is None else f"{row['accuracy']:.2%}",
            f"{share:.1e}",
        ]
    ]
    if is_sparse:
        lines.append(
            [
                "",
                "dense twin",
                f"{export.dense_bytes:,}",
                f"{export.dense_gzip_bytes:,}",
                _number(export.dense_zstd_bytes),
                "",
                "",
                "",
            ]
        )
    return lines


def _time_line(row):
    if row["seconds"] is None:
        return [row["form"], "-", "-", "the same file", "-"]
    ratio = row["dense_seconds"] / row["seconds"]
    emulated = "-"
    if row["emulated_seconds"]:
        faster = row["emulated_dense_seconds"] / row["emulated_seconds"]
        emulated = f"{faster:.2f}"
    return [
        row["form"],
        f"{1e3 * row['seconds']:.3f}",
        f"{1e3 * row['dense_seconds']:.3f}",
        f"{ratio:.2f}",
        emulated,
    ]


def _number(value):
    return "-" if value is None else f"{value:,}"


def _table(head, rows, left=(0, 1)):
    """Returns lines of columns, numbers to the right."""
    rows = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            f"{cell:<{width}}" if i in left else f"{cell:>{width}}"
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
