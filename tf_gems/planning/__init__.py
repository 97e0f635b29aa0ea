"""How many zeros a network needs to be small or fast enough, and where."""

from tf_gems.planning.plan import Plan
from tf_gems.planning.plan import plan

__all__ = ["Plan", "plan"]
