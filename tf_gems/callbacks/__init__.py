"""Callbacks for `fit`."""

from tf_gems.callbacks.backup import Backup
from tf_gems.callbacks.edge_popup_callback import EdgePopupCallback
from tf_gems.callbacks.gem_tensor_board import GemTensorBoard
from tf_gems.callbacks.gradual_magnitude_callback import (
    GradualMagnitudeCallback,
)
from tf_gems.callbacks.rewind_point import RewindPoint
from tf_gems.callbacks.rewiring_callback import RewiringCallback
from tf_gems.callbacks.set_epoch import SetEpoch

__all__ = [
    "Backup",
    "EdgePopupCallback",
    "GemTensorBoard",
    "GradualMagnitudeCallback",
    "RewindPoint",
    "RewiringCallback",
    "SetEpoch",
]
