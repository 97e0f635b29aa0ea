"""Pruning methods side by side, at equal cost."""

from tf_gems.comparison.compare import compare
from tf_gems.comparison.comparison import Comparison

__all__ = ["Comparison", "compare"]
