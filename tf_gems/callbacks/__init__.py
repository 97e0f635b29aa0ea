"""Callbacks for `fit`.

Callbacks that prune are defined with their method, in `tf_gems.gem_miner` and
`tf_gems.methods`. They are also available here, and are loaded when used.
"""

import importlib

from tf_gems.callbacks.backup import Backup
from tf_gems.callbacks.gem_tensor_board import GemTensorBoard
from tf_gems.callbacks.set_epoch import SetEpoch

_PRUNE = {
    "ACDCCallback": "tf_gems.methods",
    "EdgePopupCallback": "tf_gems.methods",
    "GemMinerCallback": "tf_gems.gem_miner",
    "GradualMagnitudeCallback": "tf_gems.methods",
    "RewindPoint": "tf_gems.methods",
    "RewiringCallback": "tf_gems.methods",
}

__all__ = ["Backup", "GemTensorBoard", "SetEpoch", *_PRUNE]


def __getattr__(name):
    if name in _PRUNE:  # methods use callbacks: neither imports first
        return getattr(importlib.import_module(_PRUNE[name]), name)
    raise AttributeError(f"module '{__name__}' has no attribute {name!r}")
