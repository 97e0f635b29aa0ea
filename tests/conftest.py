"""Sets up all tests: silent logs, fixed seeds and two devices."""

# ruff: noqa: E402
import gc
import os

gc.disable()  # Importing creates no garbage.

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest
from eager import run_eagerly

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    # Devices cannot change after TensorFlow has run an operation.
    [_cpu, *_] = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(
        _cpu, [tf.config.LogicalDeviceConfiguration()] * 2
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Assigns whole modules to workers, so that each is set up only once.

    Idle workers take tests from other workers.
    """
    if config.option.dist != "load":
        return None  # Another scheduler was requested.
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collection_finish():
    """Excludes imported objects from garbage collection."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True, scope="module")
def frozen_imports():
    """Excludes a module's imports from later searches for live objects."""
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def fresh_keras():
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
    keras.backend.clear_session(free_memory=False)  # Freeing memory is slow.


@pytest.fixture
def eagerly():
    """Runs TensorFlow functions eagerly.

    For tests of trainings of a few steps, since compiling takes as long as 50
    steps. Tests of the training step itself run compiled.
    """
    with run_eagerly():
        yield


@pytest.fixture(scope="session")
def mirrored_strategy():
    """The only `MirroredStrategy`, since a process can create just one."""
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.distribute needs the TensorFlow backend")
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
