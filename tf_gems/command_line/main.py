"""Finds the command, reads its flags, runs it, and says how that went.

A command is a module with a docstring, whose first line is its summary and
whose second paragraph is its usage; `define_flags(values)`, which defines absl
flags; and `run(arguments, values)`, which gets what is no flag, and prints.
"""

import os
import sys

from absl import flags

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
_HELP = ("--help", "-help", "-h", "help")


def main(arguments):
    """Runs a command.

    Args:
        arguments: List of strings: the command, its flags and arguments.

    Returns:
        Exit code: 0 if all went well, 1 if not, 2 if this is no command, 130
        if it was interrupted.
    """
    _open_closed_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _fail(
            "Interrupted. No file is left half-written: the same command "
            "begins again, and replaces what it had finished.",
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
    except Exception as error:  # of a library below; `-X dev` shows where
        if sys.flags.dev_mode:
            raise
        return _fail(f"{type(error).__name__}: {error}", 1)


def _run(arguments):
    try:
        if not arguments or arguments[0] in _HELP:
            print(_overview(), file=sys.stdout if arguments else sys.stderr)
            return 0 if arguments else 2
        name, *rest = arguments
        command = COMMANDS[check_choice(name, "command", COMMANDS)]
    except ValueError as error:
        return _fail(f"{error} See `python -m tf_gems --help`.", 2)
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # flags may follow arguments
    command.define_flags(values)
    if any(argument in _HELP[:3] for argument in rest):
        print(_description(command, values))
        return 0
    try:
        command.run(values([name, *rest])[1:], values)
    except (flags.Error, UsageError) as error:
        return _fail(f"{error} See `python -m tf_gems {name} --help`.", 2)
    return 0


def _open_closed_streams():
    """Python has `None` for a stream that was closed before it began."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))


def _drop_output():
    """Forgets what cannot be written, or Python tries again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message, code):
    """Writes a message in one line, without what terminals would obey."""
    text = printable(" ".join(message.split()))
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST].rstrip()} ..."
    print(f"tf_gems: {text}", file=sys.stderr)
    return code


def _overview():
    lines = ["usage: python -m tf_gems COMMAND [ARGUMENTS] [--FLAGS]", ""]
    lines += [
        f"  {name:<10}{command.__doc__.splitlines()[0]}"
        for name, command in COMMANDS.items()
    ]
    lines += ["", "`python -m tf_gems COMMAND --help` tells more of each."]
    return "\n".join(lines)


def _description(command, values):
    lines = [command.__doc__.strip(), ""]
    for name in sorted(values):
        lines.append(f"  --{name}: {values[name].help}")
    return "\n".join(lines)
