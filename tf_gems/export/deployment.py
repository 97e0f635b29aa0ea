"""Writes a network in every form, and reports on all of them."""

import dataclasses
import os
import tempfile

import keras
import numpy as np

from tf_gems.export import accuracy as measured
from tf_gems.export import forms as litert_forms
from tf_gems.export import gem
from tf_gems.export import latency
from tf_gems.export.litert import calibration_data
from tf_gems.export.litert import gathered
from tf_gems.export.litert import write_litert
from tf_gems.export.network import Network
from tf_gems.export.saved_model import write_saved_model
from tf_gems.export.sparse_operators import host_has_sparse_kernels
from tf_gems.export.sparse_operators import sparse_operators
from tf_gems.files import lock
from tf_gems.tables import DataReport
from tf_gems.tables import Table
from tf_gems.targets import check_names
from tf_gems.targets import claiming
from tf_gems.validation import check_choice
from tf_gems.validation import check_function
from tf_gems.validation import check_integer
from tf_gems.validation import check_list

_FORMS = (*litert_forms.FORMS, "saved_model", "gem")
_NAMES = {"saved_model": "saved_model", "gem": "ticket.gem"}
# What is `None` in a row until it is known.
_COLUMNS = (
    *("refused", "export", "accuracy", "seconds", "dense_seconds"),
    *("emulated_seconds", "emulated_dense_seconds"),
)
_COMPARED = 32
_CALIBRATED = 100


@dataclasses.dataclass
class DeploymentReport(DataReport):
    """Bytes, accuracy, parity and latency of a network by form.

    Args:
        name: String, the name of the network.
        examples: Integer, number of examples for the accuracy.
        accuracy: Float, the accuracy of the Keras model, or `None` without
            labels.
        sparse_host: Whether XNNPACK uses its sparse kernels on this machine;
            `None` if unknown.
        rows: List of dicts, one for each form: `form`; `refused`, the reason
            if nothing was written, or `None`; `export`, the
            `tf_gems.ExportReport`; `accuracy`; `seconds` and `dense_seconds`,
            the median time of one example for the file and its dense twin,
            measured alternately; `emulated_seconds` and
            `emulated_dense_seconds`, the same on an emulated processor without
            AVX, if measured; and `layers`, see
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

    def _parts(self):
        written = [row for row in self.rows if row["export"]]
        sizes = [line for row in written for line in _size_lines(row)]
        columns = ["form", "", ">bytes", ">gzip", ">zstd", ">zeros"]
        title = "no labels were passed, so no accuracy was measured."
        if self.accuracy is not None:
            title = f"Keras has an accuracy of {self.accuracy:.2%} on "
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
                "Median time of one example, measured alternately with the "
                "dense twin:",
                Table([*columns, ">emulated"], map(_time_line, timed)),
            ]
        if any(row["emulated_seconds"] for row in written):
            parts.append(
                "emulated: time of the dense file / time of this file on an "
                "emulated processor without AVX. It compares amounts of "
                "work, not times of a device."
            )
        host = {
            True: "This processor uses XNNPACK's sparse kernels.",
            False: "This processor has AVX, so XNNPACK's sparse kernels are "
            "disabled.",
            None: "It is not known whether XNNPACK uses sparse kernels on "
            "this processor.",
        }[self.sparse_host]
        parts += ["", f"Reasons by layer. {host}"]
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


def deployment_report(
    model,
    directory,
    data,
    forms=_FORMS,
    representative_data=None,
    runs=100,
    metric=measured.accuracy,
    compact=False,
) -> DeploymentReport:
    """Writes a network in several forms, runs them, and reports on them.

    All measurements use the written files and the runtimes of users. Accuracy
    is measured on all of `data`. Latency is measured alternately with the
    dense twin of each file. A form that cannot run is not written, and the
    report gives the reason.

    If the processor of this machine disables the sparse kernels of XNNPACK
    and `qemu-x86_64` is installed, files that would use them are also timed on
    an emulated processor without AVX. Emulated times compare amounts of work.
    They are not the latency of a device.

    Args:
        model: `tf_gems.SparseModel`, or plain Keras model with zeros in its
            weights. It is not changed.
        directory: String or path, created if it does not exist. Files in it
            that an earlier report wrote are replaced. Other files are kept.
        data: `(inputs, labels)`, real data. If labels are `None`, no accuracy
            is measured. If the model has several outputs, labels are a dict
            from the name of one output to its labels.
        forms: Sequence of forms of `tf_gems.export_litert`,
            `"saved_model"`, and `"gem"`, a ticket file, see
            `tf_gems.export.export_gem`. Defaults to all of them.
        representative_data: Inputs for calibrating `"int8"`. Defaults to
            `None`: the first hundred examples of `data`.
        runs: Integer, number of timed runs of each file; 0 to measure no
            latency. Defaults to `100`.
        metric: Function of labels and outputs. Defaults to the accuracy: the
            fraction of examples whose largest output is their label, or, for a
            single output, whose label is 1 if the output exceeds 0.5 and 0
            otherwise.
        compact: Whether to first remove the channels that zeros disconnect,
            see `tf_gems.export_litert`. A ticket file contains masks of the
            original model and is not affected. Defaults to `False`.

    Returns:
        `tf_gems.DeploymentReport`.

    Raises:
        FileExistsError: If the directory contains a file with the name of a
            form that this function did not write.
        OSError: If `directory` cannot be written.
        RuntimeError: If another process writes there, if nothing has been
            pruned yet, or if Keras does not run on TensorFlow.
        ValueError: If an argument is out of range, or the model is not a
            built Keras 3 model.

    Example:

    ```python
    report = tf_gems.deployment_report(
        sparse, "exported", (images, labels), forms=("float32", "int8")
    )
    print(report)
    ```
    """
    for form in check_list(forms, "forms", "forms of files"):
        check_choice(form, "forms", _FORMS)
    check_function(metric, "metric")
    if not isinstance(data, list | tuple) or len(data) != 2:
        raise ValueError(
            "`data` must be a pair of inputs and labels. Received: data of "
            f"type {type(data).__name__}. Pass `(inputs, None)` if there are "
            "no labels."
        )
    runs = check_integer(runs, "runs")
    names = [_NAMES.get(form, f"{form}.tflite") for form in forms]
    check_names(directory, names)
    inputs, labels = data
    network = Network(model, inputs, compact)
    signature = network.signature
    flat = signature.flatten(inputs)
    if representative_data is not None:
        representative_data = gathered(representative_data)
        calibration_data(signature, representative_data)  # or refused

    def first(count):
        if not signature.is_batched(
            flat
        ):  # the nodes and edges of a graph, say
            return inputs
        size = signature.batch_size or 1
        count = max(1, count // size) * size
        return keras.tree.map_structure(lambda x: np.asarray(x)[:count], inputs)

    of_keras = output = None
    if labels is not None:
        [outputs] = network.outputs([network.given(first(1))])
        output, labels = measured.named_labels(labels, list(outputs))
        # Before anything is written: labels may not be what `metric` takes.
        of_keras = metric(labels, measured.keras_outputs(network, flat, output))
    writer = _Writer(
        network=network,
        compared=first(_COMPARED),
        calibrated=representative_data,
        compact=compact,
        example=signature.flatten(first(1)),
        runs=runs,
    )
    if representative_data is None:
        writer.calibrated = first(_CALIBRATED)
    rows = []
    with lock(directory), claiming(directory, names):
        for form, name in zip(forms, names, strict=True):
            row = writer.row(form, os.path.join(os.fspath(directory), name))
            if labels is not None and row["export"] is not None:
                outputs = writer.outputs(row["export"], flat, output)
                row["accuracy"] = metric(labels, outputs)
            rows.append(row)
    return DeploymentReport(
        name=network.name,
        examples=len(flat[0]),
        accuracy=of_keras,
        sparse_host=host_has_sparse_kernels(),
        rows=rows,
    )


@dataclasses.dataclass
class _Writer:
    """Writes and times a network, one form at a time."""

    network: Network
    compared: object
    calibrated: object
    compact: bool
    example: list
    runs: int

    def row(self, form, path):
        """Returns a row of `DeploymentReport.rows`, without the accuracy."""
        row = {"form": form, **dict.fromkeys(_COLUMNS), "layers": []}
        write = {"saved_model": self._saved_model, "gem": self._gem}
        try:
            write.get(form, self._litert)(path, row)
        except RuntimeError as error:
            if form == "saved_model" or row["export"] is not None:
                raise
            row["refused"] = str(error)
        return row

    def outputs(self, export, flat, output):
        """Returns one output of what was written for all examples."""
        if export.format == "gem":
            return gem.gem_outputs(export.path, self.network, flat, output)
        run = measured.litert_outputs
        if export.format == "saved_model":
            run = measured.saved_model_outputs
        return run(export.path, self.network.signature, flat, output)

    def _gem(self, path, row):
        row["export"] = gem.export_gem(self.network.model, path, self.compared)

    def _saved_model(self, path, row):
        def measure(*pair):
            if self.runs:
                feed = self.network.signature.feed(self.example)
                row["seconds"], row["dense_seconds"] = (
                    latency.saved_model_seconds(pair, feed, self.runs)
                )

        row["export"] = write_saved_model(
            *(self.network.model, path, self.compared),
            overwrite=True,
            compact=self.compact,
            measure=measure,
        )

    def _litert(self, path, row):
        export, dense = write_litert(
            *(self.network.model, path, self.compared, row["form"]),
            self.calibrated if row["form"] == "int8" else None,
            compact=self.compact,
        )
        row["export"], row["layers"] = export, sparse_operators(path)
        if not self.runs or export.bytes == export.dense_bytes:
            return
        with tempfile.NamedTemporaryFile(suffix=".tflite") as twin:
            twin.write(dense)
            twin.flush()
            pair = [path, twin.name]
            feed = self.network.signature.in_float32().feed(self.example)
            row["seconds"], row["dense_seconds"] = latency.litert_seconds(
                pair, feed, self.runs
            )
            hidden = any(
                layer["runs_sparse"] == "without AVX" for layer in row["layers"]
            )
            if hidden and not host_has_sparse_kernels():
                times = latency.emulated_seconds(pair) or (None, None)
                row["emulated_seconds"], row["emulated_dense_seconds"] = times


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
