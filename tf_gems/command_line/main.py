"""Finds the command, reads its flags, runs it, and reports errors.

A command is a module with a docstring, whose first line is its summary;
`define_flags(parser)`, which adds arguments to an `argparse` parser; and
`run(values)`, which gets their values, and prints.
"""

import argparse
import os
import sys

from tf_gems import __version__
from tf_gems.command_line import compare
from tf_gems.command_line import expand
from tf_gems.command_line import export
from tf_gems.command_line import inspect
from tf_gems.command_line import report
from tf_gems.command_line import serve
from tf_gems.command_line.usage import UsageError
from tf_gems.text import printable
from tf_gems.validation import check_choice

COMMANDS = {
    "compare": compare,
    "expand": expand,
    "export": export,
    "inspect": inspect,
    "report": report,
    "serve": serve,
}
_LONGEST = 2000


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are raised, so that `main` reports them all."""

    def print_help(self, file=None):
        # The method of argparse ignores a full disk.
        print(self.format_help(), end="", file=file or sys.stdout)

    def error(self, message):
        raise UsageError(f"{message[:1].upper()}{message[1:]}.")


def main(arguments=None):
    """Runs a command.

    Returns:
        Exit code: 0 for success, 1 for an error, 2 for a wrong call, 130 for
        an interrupt.
    """
    _open_closed_streams()
    try:
        code = _run(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _fail(
            "Interrupted. No file is incomplete. Run the same command again; "
            "it replaces what it had finished.",
            130,
        )
    except BrokenPipeError:  # the reader has seen enough, as `head` does
        _drop_output()
        return 1
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        _drop_output()
        return _fail(str(error) or type(error).__name__, 1)
    except MemoryError as error:
        return _fail(f"There is not enough memory. {error}", 1)
    except (
        Exception
    ) as error:  # of another library; `-X dev` shows the traceback
        if sys.flags.dev_mode:
            raise
        return _fail(f"{type(error).__name__}: {error}", 1)


def _run(arguments):
    parser = _parser()
    if not arguments:
        parser.print_help(sys.stderr)
        return 2
    name, asked = arguments[0], "tf_gems"
    try:
        if not name.startswith("-"):
            asked = f"tf_gems {check_choice(name, 'command', COMMANDS)}"
    except ValueError as error:
        return _fail(f"{error} See `tf_gems --help`.", 2)
    try:
        values = parser.parse_args(arguments)
        values.run(values)
    except UsageError as error:
        return _fail(f"{error} See `{asked} --help`.", 2)
    except SystemExit as done:  # after `--help` and `--version`
        return done.code
    return 0


def _parser():
    look = {
        "allow_abbrev": False,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }
    parser = _Parser(
        prog="tf_gems",
        description="Prunes Keras models, and reads and exports tickets.",
        epilog="`tf_gems COMMAND --help` describes a command.",
        **look,
    )
    parser.add_argument(
        "--version", action="version", version=f"tf_gems {__version__}"
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    for name, command in COMMANDS.items():
        summary = command.__doc__.splitlines()[0]
        part = commands.add_parser(
            name, help=summary, description=command.__doc__, **look
        )
        command.define_flags(part)
        part.set_defaults(run=command.run)
    return parser


def _open_closed_streams():
    """Opens standard streams that were closed before Python started.

    Otherwise, the next file would get the file descriptor of a stream.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


def _drop_output():
    """Drops output that cannot be written, which Python would retry at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message, code):
    """Writes a message in one line, without control characters."""
    text = printable(" ".join(message.split()))
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST].rstrip()} ..."
    print(f"tf_gems: {text}", file=sys.stderr)
    return code
