"""On which devices a recipe trains: one, all of a machine, or of a cluster.

The batch size is global: every device gets its share of each batch.
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
    """Defines the flags that choose devices."""
    flags.DEFINE_enum(
        "backend",
        None,
        BACKENDS,
        "Of Keras; default: KERAS_BACKEND, or TensorFlow.",
    )
    flags.DEFINE_enum(
        "strategy",
        "none",
        STRATEGIES,
        "One device; all GPUs of this machine; or those of the workers that "
        "TF_CONFIG names. On JAX: `mirrored` is data parallel over all "
        "devices of this process.",
    )
    flags.DEFINE_integer(
        "workers",
        0,
        "Starts so many workers on this machine, for a try-out of "
        "--strategy=multiworker.",
        lower_bound=0,
    )


class AnyBatch(keras.distribution.DataParallel):
    """Data parallel; a batch that devices cannot share evenly is of each."""

    def get_data_layout(self, data_shape):
        axes = [None] * len(data_shape)
        if data_shape[0] % self.num_model_replicas == 0:
            axes[0] = self.batch_dim_name
        return keras.distribution.TensorLayout(axes, self.device_mesh)


class Devices:
    """What trains together; made once, before anything runs.

    Args:
        name: One of `STRATEGIES`.

    Attributes:
        strategy: `tf.distribute.Strategy`, or `None`: one device, or JAX,
            where Keras itself is told.

    Raises:
        ValueError: If the backend has no such strategy.
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
                "Workers are joined by TensorFlow. Received: "
                f"strategy={name!r} on backend '{keras.backend.backend()}'. "
                "Use KERAS_BACKEND=tensorflow, or --strategy=mirrored."
            )

    def scope(self):
        """Returns the scope in which models are made and compiled."""
        if self.strategy is None:
            return contextlib.nullcontext()
        return self.strategy.scope()

    @property
    def replicas(self):
        """Integer, how many share a batch in equal parts."""
        return self.strategy.num_replicas_in_sync if self.strategy else 1

    def check_batch(self, batch_size):
        """Raises `ValueError` unless they can share a batch of training."""
        if batch_size % self.replicas:
            raise ValueError(
                "Replicas share each batch evenly. Received: batch_size="
                f"{batch_size} for {self.replicas} replicas. Use a multiple."
            )

    @property
    def chief(self):
        """Whether this process is the one that writes."""
        if self.strategy is None:
            return True
        return self.strategy.extended.should_checkpoint

    def wait_for_all(self):
        """Returns once all workers are here, and see what the chief wrote."""
        if self.strategy is None:
            return
        import tensorflow as tf

        def add_up():
            context = tf.distribute.get_replica_context()
            return context.all_reduce("sum", tf.constant(1.0))

        tf.function(self.strategy.run)(add_up)


def arguments_without(*names):
    """Returns the arguments of this very command without some flags.

    Args:
        *names: Strings, such as `"workers"`, of flags that take values.

    Returns:
        List of strings.
    """
    found, arguments = [], iter(sys.argv[1:])
    for argument in arguments:
        name, equals, _ = argument.lstrip("-").partition("=")
        if not (argument.startswith("-") and name in names):
            found.append(argument)
        elif not equals:
            next(arguments, None)  # its value
    return found


def start_workers(count):
    """Runs this very command as workers on this machine, until all are done.

    Args:
        count: Integer.

    Returns:
        Integer, the exit code of the first that failed, or 0.
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
