"""Imports TensorFlow without its startup messages.

Keras reads its backend at import time, before flags are parsed. This module
therefore looks for `--backend` in the arguments.
"""

import os
import sys

for _place, _argument in enumerate(sys.argv[1:], 1):
    _name, _, _value = _argument.partition("=")
    if _name in ("-backend", "--backend"):
        _value = _value or "".join(sys.argv[_place + 1 : _place + 2])
        os.environ["KERAS_BACKEND"] = _value

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# Native code writes them directly, not through `sys.stderr`.
_terminal = os.dup(2)
_sink = os.open(os.devnull, os.O_WRONLY)
os.dup2(_sink, 2)
try:
    import tensorflow

    # Workers must connect before the first operation. Otherwise this operation
    # logs the processor here.
    if "TF_CONFIG" not in os.environ:
        tensorflow.zeros(())
    # Each new model is traced again, which logs a warning.
    tensorflow.get_logger().setLevel("ERROR")
finally:
    os.dup2(_terminal, 2)
    os.close(_terminal)
    os.close(_sink)
