"""Runs Vela, Arm's compiler for Ethos-U NPUs, in a process of its own."""

import csv
import dataclasses
import glob
import os
import re
import subprocess
import sys

from tf_gems.validation import check_package

ACCELERATORS = (
    *(f"ethos-u55-{macs}" for macs in (32, 64, 128, 256)),
    *(f"ethos-u65-{macs}" for macs in (256, 512)),
    *(f"ethos-u85-{macs}" for macs in (128, 256, 512, 1024, 2048)),
)
_MODULE = "ethosu.vela"
_SECONDS = 3600


@dataclasses.dataclass(frozen=True)
class VelaEstimate:
    """Vela's estimates for one file, which are not measurements.

    Args:
        cycles: Integer, clock cycles of the NPU for one inference.
        seconds: Float, time of one inference at Vela's clock.
        sram_bytes: Integer, memory for activations.
        weight_bytes: Integer, size of the encoded weights.
        npu_operators: Integer, operators that run on the NPU.
        cpu_operators: Integer, operators that run on the CPU.
        system: String, the system and memory that Vela assumes.
    """

    cycles: int
    seconds: float
    sram_bytes: int
    weight_bytes: int
    npu_operators: int
    cpu_operators: int
    system: str
    _computed = ("npu_share",)

    @property
    def npu_share(self):
        """Share of the operators that run on the NPU."""
        count = self.npu_operators + self.cpu_operators
        return self.npu_operators / count if count else 0.0


def version():
    """Returns the version of Vela, or raises an error if there is none."""
    return check_package(
        *(_MODULE, "ethos-u-vela", "ethos-u"),
        "Files for an Ethos-U NPU are compiled with Vela.",
    )


def compile_for_npu(data, accelerator, folder):
    """Compiles the bytes of an 8-bit TFLite file in an empty folder.

    Returns:
        `(compiled, estimate)`: bytes, and a `VelaEstimate`.
    """
    path = os.path.join(folder, "network.tflite")
    with open(path, "wb") as file:
        file.write(data)
    command = [sys.executable, "-m", _MODULE, path]
    command += ["--accelerator-config", accelerator, "--output-dir", folder]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise _failure(accelerator, f"took more than {_SECONDS} s") from error
    said = f"{done.stdout}\n{done.stderr}"
    if done.returncode:
        lines = [line.strip() for line in said.splitlines() if line.strip()]
        last = lines[-1] if lines else "no output"
        raise _failure(accelerator, f"ended with {done.returncode}: {last}")
    try:
        with open(os.path.join(folder, "network_vela.tflite"), "rb") as file:
            compiled = file.read()
        return compiled, _estimate(folder, said)
    except (LookupError, OSError, TypeError, ValueError) as error:
        raise _failure(
            accelerator, f"wrote files of an unknown format ({error})"
        ) from error


def _estimate(folder, said):
    """Reads Vela's summary, and how many operators it says run where."""
    [summary] = glob.glob(os.path.join(glob.escape(folder), "*_summary_*.csv"))
    with open(summary, encoding="utf-8", newline="") as file:
        [row] = csv.DictReader(file)
    counts = {
        kind: int(number)
        for kind, number in re.findall(r"(CPU|NPU) operators = (\d+)", said)
    }
    return VelaEstimate(
        cycles=round(float(row["cycles_total"])),
        seconds=float(row["inference_time"]),
        sram_bytes=round(1024 * float(row["sram_memory_used"])),
        weight_bytes=round(float(row["total_npu_encoded_weights"])),
        npu_operators=counts["NPU"],
        cpu_operators=counts["CPU"],
        system=f"{row['system_config']}, {row['memory_mode']}, "
        f"{float(row['core_clock']) / 1e6:g} MHz",
    )


def _failure(accelerator, reason):
    return RuntimeError(
        "A file for an NPU must compile. Received: "
        f"accelerator={accelerator!r}, for which Vela {version()} {reason}. "
        "Nothing was written. Try another accelerator, or export only the "
        "int8 form with `tf_gems.export_litert`."
    )
