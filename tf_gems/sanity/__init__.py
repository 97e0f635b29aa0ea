"""Sanity checks: whether the mask and the weights of a ticket matter.

A ticket is compared with variants that have another mask (*shuffled*: the same
number of random entries in every layer), other weights (*reinitialized*), or
both (*random*). If a variant is less accurate, the property that was
randomized matters.

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
