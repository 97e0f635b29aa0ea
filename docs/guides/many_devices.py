# %% [markdown]
"""
# Many devices and long runs

Training on several devices is TensorFlow's and Keras' own; `tf_gems` adds no
engine. The batch size is global: each device gets its share of every batch.
Masks, flags and the weight of the score penalty are the same on every device at
every step. The ticket is that of one device at the same global batch, up to the
order in which floats are added. That order may change a score near the
threshold, and then a mask entry.

## A machine with several GPUs

A recipe takes a flag:

    python recipes/cifar10.py --strategy=mirrored

In a script of your own, make and compile the model in the scope:
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
* Use one strategy in a process. A second `MirroredStrategy` on the same devices
  fails in TensorFlow ("Shape mismatch in the collective instance").
* Choose a batch size that the devices divide. Otherwise the examples of the
  smaller shares have another weight, as always with `tf.distribute`.
* Two things fail in Keras 3.15 on several replicas, whatever the model: a first
  batch, of `fit` or `evaluate`, that they do not share evenly, and
  `steps_per_execution` above 1. The recipes and `gems.compare` avoid both.
* Statistics of `BatchNormalization` are those of a replica, averaged over the
  replicas of a process. `synchronized=True` takes them over the global batch.
* `jit_compile=True` does not work under `MirroredStrategy`, whatever the model.
  Keras' default, `"auto"`, leaves it out.
* Wrap the whole network in a `SparseModel`. A `GemLayer` before a
  `BatchNormalization` in a plain model loses the `add_loss` of replicas, as any
  Keras layer does there.

## A cluster

Every worker runs the same command, with `TF_CONFIG` in its environment:

    TF_CONFIG='{"cluster": {"worker": ["a:2222", "b:2222"]},
                "task": {"type": "worker", "index": 0}}' \\
        python recipes/cifar10.py --strategy=multiworker

To try it on one machine, `--workers=2` starts two and sets `TF_CONFIG`:

    python recipes/digits.py --preset=smoke --workers=2

* Make the strategy before any other operation runs.
* The output directory is on a file system that all workers share. The chief,
  worker 0, writes; all read.
* A plain Keras model trains on several workers after
  `gems.workers.prepare(model)`: Keras 3.15 averages over the workers what cannot
  be averaged. A `SparseModel` needs no such call.
* If a worker is lost, all stop. Start them all again: they resume at the
  interrupted epoch, from the chief's backup.
* Masks, flags, scores and weights are the same on every worker, bit for bit.
  Statistics of `BatchNormalization` are each worker's own. The ticket, the
  backup and the exports hold the chief's.

## Keras on JAX

Call `keras.distribution.set_distribution(keras.distribution.DataParallel())`
before you make the model, or pass a flag to a recipe:

    python recipes/cifar10.py --backend=jax --strategy=mirrored

Keras needs batches that the devices divide. To try it on one processor, set
`XLA_FLAGS=--xla_force_host_platform_device_count=4`. Exports need the TensorFlow
backend: run the same command with it to finish.

## Comparisons and the paper's tables

All devices can train each cell together, or each device has cells of its own:

    python recipes/compare.py --preset=cifar10 --strategy=mirrored
    CUDA_VISIBLE_DEVICES=1 python recipes/compare.py --preset=cifar10

Start the second command once for each device, with one `--output_dir`. Each
process runs the cells that no other has claimed. `gems.compare` takes
`strategy=strategy`; a scope around the call would end with its first cell.

`gems.compare` also takes any `concurrent.futures.Executor`, whose workers run
the cells: processes of this machine, or the executor of loky, Dask or MPI on
many machines.

    import concurrent.futures
    import multiprocessing

    if __name__ == "__main__":
        spawn = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(2, spawn) as executor:
            gems.compare(..., executor=executor)

* The rows are those of a run without an executor.
* Workers receive `build`, the data and the other arguments by pickling. Define
  functions and classes in a module or at the top of the script. Pass a function
  from a seed to the data in place of a `tf.data.Dataset`. loky and Dask also
  pickle local functions.
* Workers that are threads, forked processes, or processes with another backend
  or another directory are refused before anything runs. A worker that builds
  another network or reads other data raises an error in place of a row.
* The cells of one ticket run in one worker. A cell that was interrupted resumes
  at its last epoch when the comparison is started again.

## Runs that may be killed

`Backup` saves all variables after each epoch. `SetEpoch` tells the data the
epoch, from which its order and augmentation follow. What pruning does follows
from the epoch and the variables alone, so the callbacks may stand in any order.
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
A run that is killed and started again loses the epoch that was interrupted, and
nothing else. On the same kind of device it ends with the same bits as a run
that was left alone: `python benchmarks/crash.py --kills=100` kills mining,
fine-tuning, exports, comparisons and searches, and compares.

* Pipelines of your own become a function of the epoch by
  `gems.datasets.by_epoch`. `fit(x, y, shuffle=True)` is not: Keras draws that
  order anew.
* A backup is a file of its own for each epoch, and is renamed into place once it
  is complete. A damaged one gives way to the one before.
* GPUs add floats in an order of their own, unless
  `tf.config.experimental.enable_op_determinism()` was called.

| what happens | what follows |
| --- | --- |
| the loss or a score is NaN or infinite | an error that names the epoch; nothing is frozen by it, and it is not backed up |
| `target_sparsity` is changed on resume | an error that names the one it began with |
| an epoch has no data | an error |
| an epoch has fewer batches than others | Keras warns; freezing depends only on the epoch number |
| `EarlyStopping(restore_best_weights=True)` | the masks of the best epoch come back, and `ticket()` refuses while more weights are alive than the target allows |
| `load_weights` or a backup of another phase or model | an error; masks stay as they were |
| replicas that do not divide a recipe's batches | an error before anything runs |
| the disk is full | an error that names the file; the old one is intact |

What all this costs in time and memory is measured in [costs](../costs.md).
"""
