# %% [markdown]
"""
# Many devices and long runs

`tf_gems` trains on several devices with the strategies of TensorFlow and the
distribution API of Keras. The batch size is global: each device gets an equal
part of every batch. Masks, flags and the weight of the score penalty are the same
on every device at every step. The ticket equals that of one device with the same
global batch size, except that floating-point sums may be computed in another
order. This can move a score across the threshold and change an entry of a mask.

## A machine with several GPUs

Recipes have a flag:

    python recipes/cifar10.py --strategy=mirrored

In your own script, create and compile the model in the scope of a strategy:
"""

# %%
import keras
import tensorflow as tf
from sklearn.datasets import load_digits

import tf_gems as gems

images, labels = load_digits(return_X_y=True)
x, y = images[:1280].astype("float32") / 16, labels[:1280]
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network():
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


strategy = tf.distribute.MirroredStrategy()
with strategy.scope():
    sparse = gems.SparseModel(network(), seed=0)
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
mining = gems.GemMinerCallback(target_sparsity=0.9, freeze_period=1)
sparse.fit(x, y, batch_size=128, epochs=4, callbacks=[mining], verbose=0)
sparse.start_finetuning()
with strategy.scope():
    sparse.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
sparse.fit(x, y, batch_size=128, epochs=2, verbose=0)

# %% [markdown]
"""
* Create only one strategy in a process. A second `MirroredStrategy` on the same
  devices fails in TensorFlow ("Shape mismatch in the collective instance").
* Choose a batch size that is divisible by the number of devices. Otherwise the
  examples of smaller parts have a different weight, as always with
  `tf.distribute`.
* In Keras 3.15, two things fail with several replicas for any model: a first batch
  (of `fit` or `evaluate`) that cannot be divided evenly, and
  `steps_per_execution` above 1. The recipes and `gems.compare` avoid both.
* The statistics of `BatchNormalization` are computed by replica, and averaged over
  the replicas of a process. `synchronized=True` computes them over the global
  batch.
* `jit_compile=True` does not work with `MirroredStrategy` for any model. Keras'
  default, `"auto"`, disables it.
* Wrap the whole network in a `SparseModel`. In a plain model, a `GemLayer` before a
  `BatchNormalization` loses the `add_loss` of replicas, as any Keras layer does
  there.

## A cluster

Every worker runs the same command with `TF_CONFIG` in its environment:

    TF_CONFIG='{"cluster": {"worker": ["a:2222", "b:2222"]},
                "task": {"type": "worker", "index": 0}}' \\
        python recipes/cifar10.py --strategy=multiworker

To try this on one machine, `--workers=2` starts two workers and sets `TF_CONFIG`:

    python recipes/digits.py --preset=smoke --workers=2

* Create the strategy before any other operation runs.
* The output directory must be on a file system that all workers share. Only the
  chief, worker 0, writes files.
* A plain Keras model can be trained on several workers after
  `gems.workers.prepare(model)`, because Keras 3.15 averages variables over the
  workers that cannot be averaged. A `SparseModel` does not need this call.
* If a worker is lost, all workers stop. Start all of them again: they resume at the
  interrupted epoch from the backup of the chief.
* Masks, flags, scores and weights are bitwise equal on all workers. Each worker has
  its own statistics of `BatchNormalization`. The ticket, the backup and the exports
  contain those of the chief.

## Keras on JAX

Call `keras.distribution.set_distribution(keras.distribution.DataParallel())`
before you create the model, or pass a flag to a recipe:

    python recipes/cifar10.py --backend=jax --strategy=mirrored

Keras requires batch sizes that are divisible by the number of devices. To try this
on one processor, set `XLA_FLAGS=--xla_force_host_platform_device_count=4`. Exports
require the TensorFlow backend: to finish the recipe, run the same command with it.

## Comparisons and the paper's tables

Either all devices train each cell together, or each device trains its own cells:

    python recipes/compare.py --preset=cifar10 --strategy=mirrored
    CUDA_VISIBLE_DEVICES=1 python recipes/compare.py --preset=cifar10

For the second case, start the command once for each device, with the same
`--output_dir`. Each process runs the cells that no other process has claimed.
Instead of entering the scope of a strategy, pass `strategy=strategy` to
`gems.compare`.

`gems.compare` also accepts a `concurrent.futures.Executor` whose workers run the
cells: processes of this machine, or the executors of loky, Dask or MPI for many
machines.

    import concurrent.futures
    import multiprocessing

    if __name__ == "__main__":
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(2, spawn) as executor:
            gems.compare(..., executor=executor)

* The results are the same as without an executor.
* Workers receive `build`, the data and the other arguments by pickling. Define
  functions and classes in a module or at the top level of the script. Pass a
  function from a seed to the data instead of a `tf.data.Dataset`. loky and Dask
  also pickle local functions.
* Threads, forked processes, and workers with another backend or directory raise an
  error before any work. A worker that builds another network or reads other data
  raises an error instead of returning results.
* All cells of one ticket run in the same worker. After an interruption, a cell
  resumes at its last epoch when the comparison is started again.

## Resume interrupted runs

`Backup` saves all variables after each epoch. `SetEpoch` passes the epoch number to
the data set, which derives its order and augmentation from it. Pruning depends only
on the epoch and the variables, so the order of the callbacks does not matter.
"""

# %%
data = gems.datasets.load("digits")
batches = data.batches(128, seed=0)
sparse = gems.SparseModel(gems.zoo.lenet_300_100((8, 8, 1), 10), seed=0)
sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
sparse.fit(
    batches,
    epochs=4,
    shuffle=False,
    verbose=0,
    callbacks=[
        gems.GemMinerCallback(0.9, freeze_period=1),
        gems.callbacks.SetEpoch(batches),
        gems.callbacks.Backup("backup"),
    ],
)
print(f"{sparse.ticket().density:.1%}")

# %% [markdown]
"""
A run that is killed and restarted repeats only the interrupted epoch. On the same
kind of device it gives the same bits as an uninterrupted run.
`python benchmarks/crash.py --kills=100` checks this: it kills mining, fine-tuning,
exports, comparisons and searches, and compares the results.

* `gems.datasets.by_epoch` makes your own pipeline a function of the epoch.
  `fit(x, y, shuffle=True)` is not a function of the epoch, because Keras draws a new
  order after a restart.
* Each epoch has its own backup file, which is renamed into place when it is
  complete. If a backup is damaged, the previous one is used.
* GPUs compute floating-point sums in varying order, unless
  `tf.config.experimental.enable_op_determinism()` was called.

| event | result |
| --- | --- |
| The loss or a score is NaN or infinite. | An error names the epoch. Nothing is frozen or backed up. |
| `target_sparsity` is changed on resume. | An error names the original target. |
| An epoch has no data. | An error. |
| An epoch has fewer batches than others. | Keras warns. Freezing depends only on the epoch number. |
| `EarlyStopping(restore_best_weights=True)` | The masks of the best epoch are restored. `ticket()` raises an error while more weights are alive than the target allows. |
| `load_weights` or a backup of another phase or model | An error. The masks are unchanged. |
| The batches of a recipe cannot be divided among the replicas. | An error before any work. |
| The disk is full. | An error names the file. The old file is intact. |

See [training cost](../costs.md) for measurements of time and memory.
"""
