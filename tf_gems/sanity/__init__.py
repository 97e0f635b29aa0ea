"""Whether it is the mask, or the weights, that make a ticket good.

A ticket is trained beside its variants without its mask (*shuffled*:
the same number kept in every layer, anywhere), without its weights
(*reinitialized*) and without both (*random*). A variant that does worse has
lost something that matters.

```python
report = tf_gems.sanity.check(ticket, fit, evaluate, model=sparse)
print(report.render())
```

References: Frankle et al., 2021, "Pruning Neural Networks at Initialization:
Why Are We Missing the Mark?", section 5; Su et al., 2020, "Sanity-Checking
Pruning Methods: Random Tickets can Win the Jackpot".
"""

from tf_gems.sanity.checking import check
from tf_gems.sanity.sanity_report import SanityReport
from tf_gems.sanity.variants import randomize
from tf_gems.sanity.variants import reinitialize
from tf_gems.sanity.variants import shuffle

__all__ = [
    "SanityReport",
    "check",
    "randomize",
    "reinitialize",
    "shuffle",
]
