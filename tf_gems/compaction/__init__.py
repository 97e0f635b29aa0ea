"""Exact removal of the channels that zeros have cut off."""

from tf_gems.compaction.compact import compact
from tf_gems.compaction.report import CompactionReport

__all__ = ["CompactionReport", "compact"]
