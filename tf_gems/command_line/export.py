"""Exports a pruned model as a TFLite file or a SavedModel.

The model is a `SparseModel`, or a plain Keras model with zeros in its weights.
The export is run and compared with the model before it is written.
"""

import math

from tf_gems.command_line.usage import UsageError
from tf_gems.command_line.usage import import_keras
from tf_gems.command_line.usage import integer
from tf_gems.command_line.usage import load_model
from tf_gems.text import printable

_LARGEST_BATCH = 1 << 28


def define_flags(parser):
    """Defines the flags of the command."""
    parser.add_argument("model", metavar="MODEL.keras")
    parser.add_argument(
        "--output",
        required=True,
        metavar="PATH",
        help="a file that ends in .tflite, or the directory of a SavedModel",
    )
    parser.add_argument(
        "--batch_size",
        type=integer(1),
        metavar="N",
        help="fixed batch size of a TFLite file (default: any)",
    )
    parser.add_argument(
        "--optimize",
        choices=["size", "latency"],
        help="what a TFLite file is optimized for (default: size)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace an existing SavedModel (a file is always replaced)",
    )
    parser.add_argument(
        "--compact",
        action="store_true",
        help="first remove the channels that zeros have disconnected",
    )


def run(values):
    """Writes an export, and prints its report."""
    import_keras()
    from tf_gems.export import export_litert
    from tf_gems.export import export_saved_model
    from tf_gems.export.paths import check_target

    output = values.output
    is_litert = output.endswith(".tflite")
    of_litert = values.batch_size or values.optimize
    if values.overwrite if is_litert else of_litert:
        raise UsageError(
            "--batch_size and --optimize are for a TFLite file, --overwrite "
            f"is for a SavedModel. Received: --output={output}."
        )
    check_target(output, directory=not is_litert)
    model = load_model(values.model)
    if values.batch_size:
        _check_batch(model, values.batch_size)
    if is_litert:
        report = export_litert(
            model,
            output,
            batch_size=values.batch_size,
            optimize=values.optimize or "size",
            compact=values.compact,
        )
    else:
        report = export_saved_model(
            model, output, overwrite=values.overwrite, compact=values.compact
        )
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
            "An export is tested with a batch of inputs of at most 256 MiB. "
            f"Received: --batch_size={batch_size}, which takes {size:,} "
            "bytes. Use a smaller one."
        )
