# %% [markdown]
"""
# Reproduce the paper

`recipes/reproduce.py` runs tables 2, 3 and 4 and figures 3, 5, 6 and 7 of "Rare
Gems: Finding Lottery Tickets at Initialization" cell by cell, and prints its
numbers beside those of the paper:

    python recipes/reproduce.py --table=3 --backend=jax

It is meant for a GPU. A finished cell is never run again, and within a cell each
epoch is backed up: `--minutes=9` ends a slice, and the same command goes on.
Tables share cells, and processes with one directory share the work.

For a quick look, reduce the epochs and the data:

    python recipes/reproduce.py --table=3 --epochs=0.08 --fraction=0.2 --seeds=1

[The paper's tables](../paper.md) has such reduced tables. No cell has been run at
full length yet.

## The settings of the authors

They are a preset for the model and the callback. `recipes/paper.py` holds the
learning rate, penalty and epochs of each network and density.
"""

# %%
import keras
from sklearn.datasets import load_digits

import tf_gems as gems

preset = gems.gem_miner.get_preset("paper")
print(preset)

# %% [markdown]
"""
The paper's "1.44 %" is a density. Its target sparsity is 0.9856. The authors'
penalty is a constant, which suits one learning rate and one number of epochs.
Here it is rescaled for a run of 12 epochs on small images. The coupled weight
decay of the paper, 1e-4, is `keras.regularizers.L2(5e-5)` on kernels.
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
## Whether the ticket matters

Table 2 of the paper shuffles the masks within each layer, and draws the weights
anew. `gems.sanity` makes such tickets:
"""

# %%
shuffled = gems.sanity.shuffle(ticket, seed=0)
assert shuffled.kept == ticket.kept

# %% [markdown]
"""
`gems.sanity.check` trains all of them and gives a verdict, see
[Compare methods](compare_methods.py).

## Methods of the paper

`gems.compare` takes the paper's methods by name, at equal numbers of epochs.
`recipes/compare.py --preset=cifar10` runs them on ResNet-20; its results are in
[methods](../methods.md).
"""
