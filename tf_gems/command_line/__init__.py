"""The command line, `python -m tf_gems`."""
