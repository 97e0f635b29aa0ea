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
from tf_gems.validation import check_choice

COMMANDS = {
    "compare": compare,
    "expand": expand,
    "export": export,
    "inspect": inspect,
    "report": report,
    "serve": serve,
}
_HELP = ("--help", "-help", "-h", "help")


def main(arguments):
    """Runs a command.

    Args:
        arguments: List of strings: the command, its flags and arguments.

    Returns:
        Exit code: 0 if all went well, 1 if not, 2 if this is no command.
    """
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
        sys.stdout.flush()
    except (flags.Error, UsageError) as error:
        return _fail(f"{error} See `python -m tf_gems {name} --help`.", 2)
    except BrokenPipeError:
        # The reader has seen enough, as `head` does.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ImportError, OSError, RuntimeError, ValueError) as error:
        return _fail(str(error) or type(error).__name__, 1)
    return 0


def _fail(message, code):
    """Writes a message in one line."""
    print(f"tf_gems: {' '.join(message.split())}", file=sys.stderr)
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
