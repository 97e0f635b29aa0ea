"""How many zeros, and which, a network needs to be as small or as fast."""

from tf_gems.planning.plan import Plan
from tf_gems.planning.plan import plan

__all__ = ["Plan", "plan"]
