"""What every test starts from: quiet logs, fixed seeds, two devices."""

# ruff: noqa: E402
import gc
import os

gc.disable()  # until all is imported, which leaves no garbage

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
from eager import run_eagerly

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    # Devices are fixed once TensorFlow has run anything.
    [_cpu, *_] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        _cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Gives each worker whole modules, so that each is set up once.

    A worker that is done takes tests from another.
    """
    if config.option.dist != "load":
        return None  # another was asked for
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collection_finish():
    """What is imported stays: collecting garbage need not look at it."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def frozen_imports():
    """What a module imported is frozen, too: phase switches search the rest."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fresh_keras():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    keras.backend.clear_session(free_memory=False)  # collecting is slow


@pytest.fixture
def eagerly():
    """Runs TensorFlow's functions eagerly.

    For tests of what happens around trainings of a few steps: to compile one
    costs as much as 50 steps. What trains is tested as it is compiled.
    """
    with run_eagerly():
        yield


@pytest.fixture(scope="session")
def mirrored_strategy():
    """The only `MirroredStrategy`: a second one in a process fails."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.distribute needs the TensorFlow backend")
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
