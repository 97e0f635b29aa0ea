"""Prunes Keras 3 models, before or after training.

The public names are defined in `tf_gems.api`. They are loaded when the first
of them is used, or when Keras is imported, because `keras.saving.load_model`
must find the layers that this package registers. Before that, `import tf_gems`
imports neither Keras nor TensorFlow, so `tf_gems inspect` starts quickly.
"""

# ruff: noqa: F403, F405

import importlib
import importlib.util
import sys
from typing import TYPE_CHECKING

import wrapt

if TYPE_CHECKING:
    from tf_gems.api import *

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "DeploymentReport",
    "ExportReport",
    "GemLayer",
    "GemMinerCallback",
    "GradualMagnitudeCallback",
    "Plan",
    "PruningReport",
    "QuantizationAwareModel",
    "SparseModel",
    "Ticket",
    "distributions",
    "callbacks",
    "compact",
    "compare",
    "datasets",
    "export_ethos_u",
    "export_litert",
    "export_micro",
    "deployment_report",
    "export_saved_model",
    "gem_miner",
    "initializers",
    "layers",
    "load_pretrained",
    "masks",
    "methods",
    "optimizers",
    "page",
    "plan",
    "recalibrate_batch_norm",
    "sanity",
    "schedules",
    "patterns",
    "strip",
    "unwrap",
    "zoo",
]


def __getattr__(name):
    path = f"{__name__}.{name}"
    if name.startswith("_"):
        raise AttributeError(f"module '{__name__}' has no attribute {name!r}")
    if _is_importing() and importlib.util.find_spec(path):
        return importlib.import_module(path)
    api = importlib.import_module("tf_gems.api")
    for namespace in (vars(api), globals()):  # the latter has the submodules
        if name in namespace:
            return namespace[name]
    raise AttributeError(f"module '{__name__}' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *__all__})


def _is_importing(besides=None):
    """Whether another module of this package is in the middle of its import."""
    return any(
        name.startswith(f"{__name__}.")
        and name != besides
        and getattr(module.__spec__, "_initializing", False)
        for name, module in list(sys.modules.items())
    )


def _register(module):
    """Registers the layers with Keras, once a module has been imported."""
    if not _is_importing(besides=module.__name__):
        importlib.import_module("tf_gems.api")


# A part of this package that is imported first may import Keras itself.
for _name in (
    "keras",
    "tf_gems.callbacks",
    "tf_gems.gem_miner",
    "tf_gems.layers",
    "tf_gems.methods",
    "tf_gems.sparse_model",
    "tf_gems.ticket",
):
    wrapt.register_post_import_hook(_register, _name)
