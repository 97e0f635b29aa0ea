"""Runs pytest on the given files, for build tools that start a program."""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(sys.argv[1:]))
