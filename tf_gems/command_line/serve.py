"""Opens a local page on which a pruned network runs beside its dense twin.

usage: python -m tf_gems serve DIRECTORY [--port=8000]
       python -m tf_gems serve DIRECTORY --copy=TARGET

The directory is that of a recipe's run, which ends with its page, or one that
`tf_gems.page.write_page` has written. The page is served to this machine
alone. With `--copy` it is copied, with all it needs, into a folder that any
server can serve.
"""

from absl import flags

from tf_gems.command_line.usage import only
from tf_gems.text import printable


def define_flags(values):
    """Defines the flags of the command."""
    flags.DEFINE_integer(
        "port",
        8000,
        "Port of this machine; 0 for any that is free.",
        lower_bound=0,
        upper_bound=65535,
        flag_values=values,
    )
    flags.DEFINE_string(
        "copy",
        None,
        "Folder to copy the page into, in place of serving it.",
        flag_values=values,
    )


def run(arguments, values):
    """Serves the page until it is interrupted, or copies it."""
    from tf_gems import page

    directory = only(arguments, "directory")
    if values.copy is not None:
        page.copy_page(directory, values.copy)
        print(f"The page is in {printable(values.copy)}.")
        return
    page.serve(directory, values.port)
