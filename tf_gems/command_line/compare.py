"""Shows the table of a comparison of methods.

The directory contains the `results.json` that `tf_gems.compare` wrote. The path
of that file is accepted as well.
"""

import os

from tf_gems.command_line.usage import import_keras


def define_flags(parser):
    """Defines the flags of the command."""
    parser.add_argument("directory", metavar="DIRECTORY")
    parser.add_argument(
        "--sparsity",
        type=float,
        metavar="0.98",
        help="the only sparsity to show (default: all)",
    )


def run(values):
    """Prints the table of a comparison."""
    import_keras("numpy")
    from tf_gems.comparison import Comparison

    path = values.directory
    if os.path.isdir(path):
        path = os.path.join(path, "results.json")
    comparison = Comparison.load(path)
    found = {row["sparsity"] for row in comparison.rows}
    if values.sparsity not in (None, *found):
        raise ValueError(
            "The comparison does not contain this sparsity. Received: "
            f"sparsity={values.sparsity}. Known: {sorted(found)}."
        )
    print(comparison.render(values.sparsity))
