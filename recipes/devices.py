"""Selects the devices on which a recipe trains.

A recipe trains on one device, on all devices of a machine or on a cluster. The
batch size is global: each batch is split across the devices.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys

import keras
from absl import flags

STRATEGIES = ("none", "mirrored", "multiworker")
BACKENDS = ("tensorflow", "jax")


def define_flags():
    """Defines the flags that select devices."""
    flags.DEFINE_enum(
        "backend",
        None,
        BACKENDS,
        "Keras backend. Defaults to KERAS_BACKEND, or to TensorFlow.",
    )
    flags.DEFINE_enum(
        "strategy",
        "none",
        STRATEGIES,
        "Distribution strategy. `none` uses one device, `mirrored` all "
        "GPUs of this machine, and `multiworker` the workers in "
        "TF_CONFIG. On JAX, `mirrored` is data parallelism over all "
        "devices of this process.",
    )
    flags.DEFINE_integer(
        "workers",
        0,
        "Number of workers to start on this machine, to try "
        "--strategy=multiworker.",
        lower_bound=0,
    )


class AnyBatch(keras.distribution.DataParallel):
    """Data parallelism that replicates batches that cannot be split evenly."""

    def get_data_layout(self, data_shape):
        axes = [None] * len(data_shape)
        if data_shape[0] % self.num_model_replicas == 0:
            axes[0] = self.batch_dim_name
        return keras.distribution.TensorLayout(axes, self.device_mesh)


class Devices:
    """The devices that train together, created before any operation runs.

    Args:
        name: String, one of `STRATEGIES`.

    Attributes:
        strategy: `tf.distribute.Strategy`, or `None` for one device and on JAX,
            where a Keras distribution is set.

    Raises:
        ValueError: If the backend does not support the strategy.
    """

    def __init__(self, name="none"):
        self.strategy = None
        if name == "none":
            return
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            self.strategy = {
                "mirrored": tf.distribute.MirroredStrategy,
                "multiworker": tf.distribute.MultiWorkerMirroredStrategy,
            }[name]()
        elif name == "mirrored":
            keras.distribution.set_distribution(AnyBatch())
        else:
            raise ValueError(
                "Several workers need the TensorFlow backend. Received: "
                f"strategy={name!r} on backend '{keras.backend.backend()}'. "
                "Use KERAS_BACKEND=tensorflow, or --strategy=mirrored."
            )

    def scope(self):
        """Returns the scope in which models are created and compiled."""
        if self.strategy is None:
            return contextlib.nullcontext()
        return self.strategy.scope()

    @property
    def replicas(self):
        """Integer, number of replicas that share each batch."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    def check_batch(self, batch_size):
        """Raises a `ValueError` if the replicas cannot share a batch evenly."""
        if batch_size % self.replicas:
            raise ValueError(
                "The batch size must be a multiple of the number of replicas. "
                f"Received: batch_size={batch_size} for {self.replicas} "
                "replicas. Use a multiple."
            )

    @property
    def chief(self):
        """Boolean, whether this process writes the files."""
        if self.strategy is None:
            return True
        return self.strategy.extended.should_checkpoint

    def wait_for_all(self):
        """Waits until all workers are here and can read the chief's files."""
        if self.strategy is None:
            return
        import tensorflow as tf

        def add_up():
            context = tf.distribute.get_replica_context()
            return context.all_reduce("sum", tf.constant(1.0))

        tf.function(self.strategy.run)(add_up)


def arguments_without(*names):
    """Returns the command-line arguments of this process without some flags.

    Args:
        *names: Strings, names of flags that take values, such as `"workers"`.

    Returns:
        List of strings.
    """
    found, arguments = [], iter(sys.argv[1:])
    for argument in arguments:
        name, equals, _ = argument.lstrip("-").partition("=")
        if not (argument.startswith("-") and name in names):
            found.append(argument)
        elif not equals:
            next(arguments, None)  # The value of the flag.
    return found


def start_workers(count):
    """Runs this command as several workers on this machine.

    Args:
        count: Integer, number of workers.

    Returns:
        Integer, the exit code of the first worker that failed, or 0.
    """
    sockets = [socket.socket() for _ in range(count)]
    for entry in sockets:
        entry.bind(("localhost", 0))
    addresses = [f"localhost:{entry.getsockname()[1]}" for entry in sockets]
    for entry in sockets:
        entry.close()
    workers = [
        subprocess.Popen(
            [
                *(sys.executable, sys.argv[0]),
                *arguments_without("workers"),
                "--strategy=multiworker",
            ],
            stdout=subprocess.DEVNULL if index else None,
            env={
                **os.environ,
                "TF_CONFIG": json.dumps(
                    {
                        "cluster": {"worker": addresses},
                        "task": {"type": "worker", "index": index},
                    }
                ),
            },
        )
        for index in range(count)
    ]
    codes = [worker.wait() for worker in workers]
    return next((code for code in codes if code), 0)
