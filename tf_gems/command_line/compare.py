"""Shows the table of a comparison of methods.

usage: python -m tf_gems compare DIRECTORY [--sparsity=0.98]

The directory holds the `results.json` that `tf_gems.compare` has written; its
path does as well.
"""

import os

from absl import flags

from tf_gems.command_line.usage import only


def define_flags(values):
    """Defines the flags of the command."""
    flags.DEFINE_float(
        "sparsity",
        None,
        "The only sparsity to show. All, if it is not given.",
        flag_values=values,
    )


def run(arguments, values):
    """Prints the table of a comparison."""
    from tf_gems.comparison import Comparison

    path = only(arguments, "directory")
    if os.path.isdir(path):
        path = os.path.join(path, "results.json")
    comparison = Comparison.load(path)
    found = {row["sparsity"] for row in comparison.rows}
    if values.sparsity not in (None, *found):
        raise ValueError(
            f"The comparison has no such sparsity. Received: "
            f"sparsity={values.sparsity}. Known: {sorted(found)}."
        )
    print(comparison.render(values.sparsity))
