"""Imports TensorFlow without the lines that it writes before any setting.

Keras reads its backend when it is imported, which is before flags are parsed:
so `--backend` is looked for here.
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

    # Workers are joined before the first operation, which else names the
    # processor here.
    if "TF_CONFIG" not in os.environ:
        tensorflow.zeros(())
    # Each new model is traced anew, which it warns of.
    tensorflow.get_logger().setLevel("ERROR")
