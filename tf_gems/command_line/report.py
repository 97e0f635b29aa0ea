"""Writes a pruned model in every form, runs them all, and reports on them.

usage: python -m tf_gems report MODEL.keras --output=DIRECTORY
       [--data=TEST.npz] [--forms=float32,float16] [--runs=100]

The data is a file of `numpy.savez` with an array `inputs` and, for the
accuracy, an array `labels`. Without it inputs are drawn at random.
"""

import json
import zipfile
import zlib

import numpy as np
from absl import flags

from tf_gems.command_line.usage import load_model
from tf_gems.command_line.usage import only
from tf_gems.files import write_text
from tf_gems.targets import check_names
from tf_gems.targets import claiming
from tf_gems.text import printable

_NAMES = ("report.json",)


def define_flags(values):
    """Defines the flags of the command."""
    flags.DEFINE_string(
        "output",
        None,
        "Directory of the files and of report.json.",
        required=True,
        flag_values=values,
    )
    flags.DEFINE_string(
        "data", None, "File of `numpy.savez`, see above.", flag_values=values
    )
    flags.DEFINE_list(
        "forms",
        ["float32", "float16", "dynamic_int8", "int8", "saved_model", "gem"],
        "What to write.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "runs",
        100,
        "Runs of each file when it is timed; 0 to time nothing.",
        lower_bound=0,
        flag_values=values,
    )


def run(arguments, values):
    """Writes the forms and their report, and prints it."""
    from tf_gems.export import deployment_report
    from tf_gems.wrapper_removal import wrapped_by

    check_names(values.output, _NAMES)
    model = load_model(only(arguments, "model"))
    data = _draw(model, wrapped_by(model)), None
    if values.data:
        data = _read(values.data)
    with claiming(values.output, _NAMES) as directory:
        report = deployment_report(
            model, directory, data, forms=values.forms, runs=values.runs
        )
        text = json.dumps(report.to_dict(), indent=1)
        write_text(directory / _NAMES[0], text)
    print(printable(report, lines=True))


def _read(path):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["inputs"], arrays.get("labels")
    except (
        *(AttributeError, EOFError, KeyError, TypeError, ValueError),
        *(zipfile.BadZipFile, zlib.error),
    ) as error:
        raise ValueError(
            "Data is a file of `numpy.savez` with an array `inputs` and "
            f"perhaps `labels`. Received: {path!r} ({error})."
        ) from error


def _draw(model, network):
    inputs = getattr(network, "inputs", None)
    if not inputs or len(inputs) != 1 or "float" not in inputs[0].dtype:
        raise ValueError(
            "Inputs can be drawn at random for a network of one input of "
            f"floats. Received: '{model.name}' of type "
            f"{type(network).__name__}. Give --data."
        )
    [symbol] = inputs
    random = np.random.default_rng(0)
    shape = [size or 8 for size in symbol.shape[1:]]
    return random.normal(size=(100, *shape)).astype(symbol.dtype)
