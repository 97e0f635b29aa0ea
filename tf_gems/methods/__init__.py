"""Methods that turn a model, and perhaps data, into a ticket.

```python
snip = tf_gems.methods.get("snip", target_sparsity=0.98)
snip.find(sparse, data).apply(sparse)
```
"""

import keras

from tf_gems import registry
from tf_gems.methods.acdc import ACDC
from tf_gems.methods.acdc import ACDCCallback
from tf_gems.methods.dynamic_sparse_training import DynamicSparseTraining
from tf_gems.methods.dynamic_sparse_training import RewiringCallback
from tf_gems.methods.edge_popup import EdgePopup
from tf_gems.methods.edge_popup import EdgePopupCallback
from tf_gems.methods.gem_miner import GemMiner
from tf_gems.methods.gradual_magnitude import GradualMagnitude
from tf_gems.methods.gradual_magnitude import GradualMagnitudeCallback
from tf_gems.methods.grasp import Grasp
from tf_gems.methods.inverted import Inverted
from tf_gems.methods.iterative_magnitude import IterativeMagnitude
from tf_gems.methods.iterative_magnitude import RewindPoint
from tf_gems.methods.learning_rate_rewinding import LearningRateRewinding
from tf_gems.methods.magnitude import Magnitude
from tf_gems.methods.method import Method
from tf_gems.methods.prospr import ProsPr
from tf_gems.methods.random_pruning import RandomPruning
from tf_gems.methods.rigl import RigL
from tf_gems.methods.snip import Snip
from tf_gems.methods.sparse_evolutionary_training import (
    SparseEvolutionaryTraining,
)
from tf_gems.methods.synflow import SynFlow
from tf_gems.methods.trained import Trained
from tf_gems.validation import check_choice

METHODS = {
    "acdc": ACDC,
    "edge_popup": EdgePopup,
    "gem_miner": GemMiner,
    "gradual_magnitude": GradualMagnitude,
    "grasp": Grasp,
    "imp": IterativeMagnitude,
    "lr_rewinding": LearningRateRewinding,
    "magnitude": Magnitude,
    "prospr": ProsPr,
    "random": RandomPruning,
    "rigl": RigL,
    "set": SparseEvolutionaryTraining,
    "snip": Snip,
    "synflow": SynFlow,
}

__all__ = [
    "ACDC",
    "ACDCCallback",
    "METHODS",
    "DynamicSparseTraining",
    "EdgePopup",
    "GemMiner",
    "GradualMagnitude",
    "Grasp",
    "Inverted",
    "IterativeMagnitude",
    "LearningRateRewinding",
    "Magnitude",
    "Method",
    "ProsPr",
    "RandomPruning",
    "RigL",
    "Snip",
    "SparseEvolutionaryTraining",
    "SynFlow",
    "Trained",
    "RewiringCallback",
    "EdgePopupCallback",
    "GradualMagnitudeCallback",
    "RewindPoint",
    "get",
]


def get(identifier, **arguments):
    """Returns a method for a name, a config or an instance.

    Args:
        identifier: A name among `METHODS`; a config made by
            `keras.saving.serialize_keras_object`; or a `Method`.
        **arguments: Arguments of the class. They replace those of a config, or
            of a copy of the instance.

    Returns:
        `Method`.

    Raises:
        ValueError: If the identifier is none of these.

    Example:

    >>> get("magnitude", target_sparsity=0.9).get_config()["target_sparsity"]
    0.9
    """
    if isinstance(identifier, str):
        known = METHODS[check_choice(identifier, "method", METHODS)]
        return known(**arguments)
    identifier = registry.get(identifier, METHODS, "method", Method)
    if not arguments:
        return identifier
    # As they are: neither a function nor a schedule need be registered.
    config = {
        name: value
        for name, value in registry.arguments_of(identifier).items()
        if value is not registry.MISSING
    }
    if type(identifier).get_config is not registry.Configurable.get_config:
        config = {**config, **identifier.get_config()}
    rate = getattr(identifier, "learning_rate", None)
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        config["learning_rate"] = rate
    return identifier.from_config({**config, **arguments})
