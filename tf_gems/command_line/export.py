"""Exports a pruned model as a TFLite file or a SavedModel.

usage: python -m tf_gems export MODEL.keras --output=MODEL.tflite
       python -m tf_gems export MODEL.keras --output=DIRECTORY [--overwrite]

The model is a `SparseModel`, or a plain one with zeros in its weights. What is
written has been run, and compared with the model.
"""

import math

from absl import flags

from tf_gems.command_line.usage import UsageError
from tf_gems.command_line.usage import load_model
from tf_gems.command_line.usage import only
from tf_gems.text import printable

_LARGEST_BATCH = 1 << 28


def define_flags(values):
    """Defines the flags of the command."""
    flags.DEFINE_string(
        "output",
        None,
        "File that ends in .tflite, or directory of a SavedModel.",
        required=True,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Batch that a TFLite file is fixed to. Any, if it is not given.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_enum(
        "optimize",
        "size",
        ["size", "latency"],
        "What a TFLite file is optimized for.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "overwrite",
        False,
        "Replace a SavedModel that is there. (A file is always replaced.)",
        flag_values=values,
    )


def run(arguments, values):
    """Writes an export, and prints its report."""
    from tf_gems.export import export_litert
    from tf_gems.export import export_saved_model
    from tf_gems.export.paths import check_target

    path, output = only(arguments, "model"), values.output
    is_litert = output.endswith(".tflite")
    other = "overwrite" if is_litert else "batch_size"
    if values[other].present or (not is_litert and values["optimize"].present):
        raise UsageError(
            "--batch_size and --optimize are for a TFLite file, --overwrite "
            f"is for a SavedModel. Received: --output={output}."
        )
    check_target(output, directory=not is_litert)
    model = load_model(path)
    if values.batch_size:
        _check_batch(model, values.batch_size)
    if is_litert:
        report = export_litert(
            model,
            output,
            batch_size=values.batch_size,
            optimize=values.optimize,
        )
    else:
        report = export_saved_model(model, output, overwrite=values.overwrite)
    print(printable(report, lines=True))


def _check_batch(model, batch_size):
    """Refuses a batch whose inputs alone would fill the memory."""
    size = (
        4
        * batch_size
        * sum(
            math.prod(side or 1 for side in symbol.shape[1:])
            for symbol in getattr(model, "inputs", None) or ()
        )
    )
    if size > _LARGEST_BATCH:
        raise ValueError(
            "A file is tried with a batch of inputs, of at most 256 MiB. "
            f"Received: --batch_size={batch_size}, which takes {size:,} "
            "bytes. Give a smaller one."
        )
