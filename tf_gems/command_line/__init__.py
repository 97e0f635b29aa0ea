"""The command line, `tf_gems`."""
