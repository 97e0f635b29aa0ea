# %% [markdown]
"""
# Reproduce the paper

`recipes/reproduce.py` runs tables 2, 3 and 4 and figures 3, 5, 6 and 7 of "Rare
Gems: Finding Lottery Tickets at Initialization" cell by cell, and prints the
results beside those of the paper:

    python recipes/reproduce.py --table=3 --backend=jax

It is intended for a GPU. Finished cells are not run again, and each epoch within
a cell is backed up. `--minutes=9` stops after nine minutes; the same command then
continues. Tables share cells, and processes with the same directory share the
work.

For a quick result, reduce the epochs and the data:

    python recipes/reproduce.py --table=3 --epochs=0.08 --fraction=0.2 --seeds=1

[Tables of the paper](../paper.md) shows such reduced tables. No cell has been run
at full length yet.

## The settings of the authors

The settings of the authors are a preset for the model and the callback.
`recipes/paper.py` lists the learning rate, penalty and epochs of each network and
density.
"""

# %%
import keras
from sklearn.datasets import load_digits

import tf_gems as gems

preset = gems.gem_miner.get_preset("paper")
print(preset)

# %% [markdown]
"""
The paper's "1.44 %" is a density, which is a target sparsity of 0.9856. The
authors' penalty is a constant, which has to be chosen for each learning rate and
number of epochs. Here it is rescaled for 12 epochs on small images. The coupled
weight decay of the paper, 1e-4, is `keras.regularizers.L2(5e-5)` on kernels.
"""

# %%
keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1) / 16
x, y, test = images[:1400], labels[:1400], (images[1400:], labels[1400:])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mine(regularization):
    network = gems.zoo.lenet_300_100((8, 8, 1), 10)
    sparse = gems.SparseModel(network, seed=0, **preset["model"])
    sparse.compile(
        keras.optimizers.SGD(1.0, momentum=0.9), loss, metrics=["accuracy"]
    )
    callback = gems.GemMinerCallback.from_preset(
        "paper",
        target_sparsity=0.95,
        freeze_period=1,
        regularization=regularization,
    )
    sparse.fit(x, y, epochs=12, verbose=0, callbacks=[callback])
    return sparse.ticket(), sparse.evaluate(*test, verbose=0)[1]


ticket, accuracy = mine(1e-3)
print(f"{ticket.density:.2%} kept, {accuracy:.1%} before fine-tuning")

# %% [markdown]
"""
## Sanity checks

Table 2 of the paper shuffles the masks within each layer, and reinitializes the
weights. `gems.sanity` creates such tickets:
"""

# %%
shuffled = gems.sanity.shuffle(ticket, seed=0)
assert shuffled.kept == ticket.kept

# %% [markdown]
"""
`gems.sanity.check` trains all variants and reports a verdict, see
[Compare methods](compare_methods.py).

## Methods of the paper

`gems.compare` runs the methods of the paper with the same number of epochs.
`recipes/compare.py --preset=cifar10` runs them on ResNet-20; the results are in the
[comparison of methods](../methods.md).
"""
