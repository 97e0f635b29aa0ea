"""The models of the sweep, by suite."""

import importlib

_MODULES = {
    "applications": ("applications",),
    "keras_hub": ("keras_hub",),
    "patterns": (
        "patterns_structure",
        "patterns_layers",
        "patterns_data",
        "patterns_training",
        "patterns_sequences",
        "patterns_vision",
        "patterns_compile",
        "patterns_graphs",
    ),
}
SUITES = tuple(_MODULES)


def load(suite):
    """Returns the cases of a suite, by name."""
    found = {}
    for name in _MODULES[suite]:
        module = importlib.import_module(f"sweep_models.{name}")
        found.update({case.name: case for case in module.CASES})
    return found
