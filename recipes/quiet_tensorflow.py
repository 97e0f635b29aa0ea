"""Imports TensorFlow without its startup messages.

Keras reads its backend at import time, before flags are parsed. This module
therefore looks for `--backend` in the arguments.
"""

import os
import sys

from tf_gems.quiet import quiet

for _place, _argument in enumerate(sys.argv[1:], 1):
    _name, _, _value = _argument.partition("=")
    if _name in ("-backend", "--backend"):
        _value = _value or "".join(sys.argv[_place + 1 : _place + 2])
        os.environ["KERAS_BACKEND"] = _value

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

with quiet():
    import tensorflow

    # Workers must connect before the first operation. Otherwise this operation
    # logs the processor here.
    if "TF_CONFIG" not in os.environ:
        tensorflow.zeros(())
    # Each new model is traced again, which logs a warning.
    tensorflow.get_logger().setLevel("ERROR")
