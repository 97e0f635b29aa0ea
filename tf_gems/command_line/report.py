"""Writes a pruned model in every form, runs the files, and reports on them.

The data is a file of `numpy.savez` with an array `inputs` and, to measure the
accuracy, an array `labels`. Without data, random inputs are used.
"""

import json
import zipfile
import zlib

import numpy as np

from tf_gems.command_line.usage import import_keras
from tf_gems.command_line.usage import integer
from tf_gems.command_line.usage import load_model
from tf_gems.command_line.usage import words
from tf_gems.files import write_text
from tf_gems.targets import check_names
from tf_gems.targets import claiming
from tf_gems.text import printable

_NAMES = ("report.json",)
_FORMS = ["float32", "float16", "dynamic_int8", "int8", "saved_model", "gem"]


def define_flags(parser):
    """Defines the flags of the command."""
    parser.add_argument("model", metavar="MODEL.keras")
    parser.add_argument(
        "--output",
        required=True,
        metavar="DIRECTORY",
        help="directory for the files and report.json",
    )
    parser.add_argument(
        "--data", metavar="TEST.npz", help="file of `numpy.savez`, see above"
    )
    parser.add_argument(
        "--forms",
        type=words,
        default=_FORMS,
        metavar="A,B",
        help=f"forms to write (default: {','.join(_FORMS)})",
    )
    parser.add_argument(
        "--runs",
        type=integer(0),
        default=100,
        metavar="N",
        help="timed runs of each file; 0 for no timing (default: 100)",
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="first remove the channels that zeros have disconnected",
    )


def run(values):
    """Writes the forms and their report, and prints it."""
    import_keras()
    from tf_gems.export import deployment_report
    from tf_gems.wrapper_removal import wrapped_by

    check_names(values.output, _NAMES)
    model = load_model(values.model)
    data = _draw(model, wrapped_by(model)), None
    if values.data:
        data = _read(values.data)
    with claiming(values.output, _NAMES) as directory:
        report = deployment_report(
            model,
            directory,
            data,
            forms=values.forms,
            runs=values.runs,
            compact=values.compact,
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
            "Data must be a file of `numpy.savez` with an array `inputs` and "
            f"optionally `labels`. Received: {path!r} ({error})."
        ) from error


def _draw(model, network):
    inputs = getattr(network, "inputs", None)
    if not inputs or len(inputs) != 1 or "float" not in inputs[0].dtype:
        raise ValueError(
            "Random inputs require a network with one floating-point input. "
            f"Received: '{model.name}' of type {type(network).__name__}. Pass "
            "--data."
        )
    [symbol] = inputs
    random = np.random.default_rng(0)
    shape = [size or 8 for size in symbol.shape[1:]]
    return random.normal(size=(100, *shape)).astype(symbol.dtype)
