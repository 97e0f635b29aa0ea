"""Export for Arm Ethos-U NPUs."""

import dataclasses
import os
import tempfile

import numpy as np

from tf_gems.export import flatbuffer
from tf_gems.export import vela
from tf_gems.export.litert import write_int8
from tf_gems.export.paths import check_target
from tf_gems.export.report import ExportReport
from tf_gems.files import TEMPORARY
from tf_gems.files import replacing_path
from tf_gems.tables import DataReport
from tf_gems.tables import Table
from tf_gems.validation import check_choice

# The largest value of a symmetric 8-bit kernel is 127, which is usually about
# three standard deviations.
_DEVIATION = 127 / 3


@dataclasses.dataclass
class EthosUReport(DataReport):
    """The files of an export for an NPU, and the estimates of its compiler.

    Args:
        export: `tf_gems.ExportReport` of the int8 file.
        compiled_path: String, the file that Vela compiled.
        compiled_bytes: Integer, its size.
        accelerator: String, the NPU.
        version: String, the version of Vela.
        estimate: `tf_gems.export.VelaEstimate` of the file.
        dense: The same for the dense twin, which is the same network with
            random numbers in place of its zeros.

    Example:

    ```python
    report = tf_gems.export_ethos_u(sparse, "model.tflite", images[:200])
    print(report.dense.cycles / report.estimate.cycles)
    ```
    """

    export: ExportReport
    compiled_path: str
    compiled_bytes: int
    accelerator: str
    version: str
    estimate: vela.VelaEstimate
    dense: vela.VelaEstimate

    def _parts(self):
        rows = []
        for name, attribute, factor, form in (
            ("cycles", "cycles", 1, "{:,}"),
            ("microseconds", "seconds", 1e6, "{:,.0f}"),
            ("SRAM, bytes", "sram_bytes", 1, "{:,}"),
            ("weights, bytes", "weight_bytes", 1, "{:,}"),
            ("operators on the NPU", "npu_share", 1, "{:.0%}"),
        ):
            ours = factor * getattr(self.estimate, attribute)
            theirs = factor * getattr(self.dense, attribute)
            times = f"{theirs / ours:.2f}" if ours else ""
            rows.append([name, form.format(ours), form.format(theirs), times])
        return [
            str(self.export),
            f"{self.compiled_path} ({self.accelerator})",
            f"  {self.compiled_bytes:,} bytes",
            f"Estimates of Vela {self.version}, not measurements "
            f"({self.estimate.system}):",
            Table(["", ">pruned", ">dense twin", ">dense : pruned"], rows),
        ]


def export_ethos_u(
    model,
    path,
    representative_data,
    accelerator="ethos-u55-128",
    inputs=None,
    tolerance=None,
    compact=False,
) -> EthosUReport:
    """Writes an int8 file and compiles it for an Arm Ethos-U NPU.

    The file at `path` computes in 8-bit integers, with integer inputs and
    outputs and a batch size of one. It is run and compared with the Keras
    model. Then Vela, Arm's compiler, compiles it to a second file in the same
    directory, whose name ends in `_vela.tflite`. Devices run this file. Vela
    encodes weights without loss, and runs of zeros take little space. Requires
    `pip install tf_gems[ethos-u]`.

    The report contains Vela's estimates for the file and for its dense twin.
    These are estimates of a compiler, not measurements on an NPU. The dense
    twin is the same file with random 8-bit numbers in place of its zeros,
    drawn from a normal distribution with a standard deviation of 127 / 3.

    Args:
        model: `tf_gems.SparseModel`, or plain Keras model with zeros in its
            weights. It is not changed.
        path: String or path that ends in `.tflite`. An existing file is
            replaced, and so is the compiled file.
        representative_data: Inputs of the model for calibrating the ranges of
            activations, a hundred real examples or more.
        accelerator: `"ethos-u55-32"`, `-64`, `-128` or `-256`;
            `"ethos-u65-256"` or `-512`; `"ethos-u85-128"`, `-256`, `-512`,
            `-1024` or `-2048`. Defaults to `"ethos-u55-128"`.
        inputs: Inputs to compare outputs on. Defaults to `None`: the
            representative data.
        tolerance: Float, see `tf_gems.export_litert`. Defaults to `None`:
            1e-1.
        compact: Whether to remove dead channels first, see
            `tf_gems.export_litert`. Defaults to `False`.

    Returns:
        `tf_gems.export.EthosUReport`.

    Raises:
        OSError: If a file cannot be written.
        RuntimeError: If Vela is not installed or fails, or as for
            `tf_gems.export_litert`. Nothing is written then.
        ValueError: If an argument is out of range, or as for
            `tf_gems.export_litert`.

    Example:

    ```python
    report = tf_gems.export_ethos_u(sparse, "model.tflite", images[:200])
    print(report)
    ```
    """
    check_target(path)
    check_choice(accelerator, "accelerator", vela.ACCELERATORS)
    version = vela.version()
    path = os.fspath(path)
    compiled_path = path.removesuffix(".tflite") + "_vela.tflite"
    estimates = []

    def compiled(data, inside):
        temporary = tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=inside)
        with temporary as folder:
            data, estimate = vela.compile_for_npu(data, accelerator, folder)
        estimates.append(estimate)
        return data

    with replacing_path(compiled_path) as partial:

        def finish(attempt):
            attempt.progress.step("compiling it")
            partial.write_bytes(compiled(attempt.data, attempt.inside))
            compiled(without_zeros(attempt.dense), attempt.inside)

        export, _ = write_int8(
            model, path, inputs, representative_data, tolerance, compact, finish
        )
    return EthosUReport(
        export=export,
        compiled_path=compiled_path,
        compiled_bytes=os.path.getsize(compiled_path),
        accelerator=accelerator,
        version=version,
        estimate=estimates[0],
        dense=estimates[1],
    )


def without_zeros(data):
    """Returns a TFLite file with random 8-bit numbers in place of zeros."""
    model = flatbuffer.read(data)
    random = np.random.default_rng(0)
    for weight in flatbuffer.weights(model):
        value = weight.value
        if value.dtype != np.int8:
            continue
        drawn = np.round(random.normal(0, _DEVIATION, value.shape))
        drawn = np.clip(np.where(drawn == 0, 1, drawn), -127, 127)
        filled = np.where(value == 0, drawn, value).astype("int8")
        model.buffers[weight.tensor.buffer].data = filled.tobytes()
    return bytes(flatbuffer.write(model))
