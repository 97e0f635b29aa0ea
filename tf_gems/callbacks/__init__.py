"""Callbacks for `fit`."""

from tf_gems.callbacks.backup import Backup
from tf_gems.callbacks.gem_miner_callback import GemMinerCallback
from tf_gems.callbacks.rewind_point import RewindPoint

__all__ = ["Backup", "GemMinerCallback", "RewindPoint"]
