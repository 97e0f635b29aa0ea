"""Opens a local page that runs a pruned network beside its dense twin.

The directory is that of a recipe's run, or one that `tf_gems.page.write_page`
has written. The page can only be opened on this machine. With `--copy`, it is
copied to a folder with all of its files, for any static web server.
"""

from tf_gems.command_line.usage import import_keras
from tf_gems.command_line.usage import integer
from tf_gems.text import printable


def define_flags(parser):
    """Defines the flags of the command."""
    parser.add_argument("directory", metavar="DIRECTORY")
    parser.add_argument(
        "--port",
        type=integer(0, 65535),
        default=8000,
        metavar="N",
        help="port on this machine; 0 for any free port (default: 8000)",
    )
    parser.add_argument(
        "--copy",
        metavar="TARGET",
        help="folder to copy the page to, instead of serving it",
    )


def run(values):
    """Serves the page until it is interrupted, or copies it."""
    import_keras()
    from tf_gems import page

    directory = values.directory
    if values.copy is not None:
        page.copy_page(directory, values.copy)
        print(f"The page is in {printable(values.copy)}.")
        return
    page.serve(directory, values.port)
