"""Runs the command line: `python -m tf_gems` is `tf_gems`."""

import sys

from tf_gems.command_line.main import main

if __name__ == "__main__":
    sys.exit(main())
