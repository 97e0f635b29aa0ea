"""Callbacks for `fit` that prune nothing: backups, logs, data by epochs."""

from tf_gems.callbacks.backup import Backup
from tf_gems.callbacks.gem_tensor_board import GemTensorBoard
from tf_gems.callbacks.set_epoch import SetEpoch

__all__ = ["Backup", "GemTensorBoard", "SetEpoch"]
