import importlib.util
import os
import pathlib
import subprocess
import sys

import keras
import pytest

FILES = [
    "layers/test_straight_through.py",
    "layers/test_gem_layer.py",
    "test_sparse_model.py",
    "test_network.py",
    "test_optimizers.py",
    "methods/test_dynamic_sparse_training.py",
    "methods/test_gradual_magnitude.py",
    "methods/test_saliency_by_hand.py",
    "methods/test_edge_popup.py",
    "methods/test_methods.py",
    "methods/test_prospr.py",
]
# One of each kind, since compiling on JAX takes seconds per network.
CHOICE = """
    (straight_through and xla) or Dense or shared
    or state_updates or float32_head or towers or bfloat16 or several_call
    or functional_model or inline or golden
    or (few_epochs and 3) or (travel and 4)
    or (model_is_unchanged and (gem_miner or imp or snip))
"""


@pytest.mark.slow
@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="the tests already run on JAX"
)
@pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed"
)
def test_tests_pass_on_jax():
    tests = pathlib.Path(__file__).parent
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider"),
            *("-k", " ".join(CHOICE.split())),
            *(str(tests / name) for name in FILES),
        ],
        env={
            **os.environ,
            "KERAS_BACKEND": "jax",
            # The results are the same, and compiling takes less time.
            "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        },
        cwd=tests.parent,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-2000:]
    assert "failed" not in run.stdout and " passed" in run.stdout
