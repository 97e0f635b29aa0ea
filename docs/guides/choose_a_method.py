# %% [markdown]
"""
# Choose a method and a sparsity

This guide answers four questions: whether to prune before or after training,
which method to use, how sparse the network can be, and how the zeros should be
spread over the layers.

| you have | use | cost of the search |
| --- | --- | --- |
| a trained model | `SparseModel(model, start="trained")` and `GradualMagnitudeCallback` | a quarter to a half of the training |
| a trained model, and no training budget | `methods.Magnitude(...).find(sparse, data)` | one pass over a few batches |
| an untrained model, and a target above 97 % zeros | `GemMinerCallback` | one training |
| an untrained model, and no budget for a search | `methods.Snip` or `methods.SynFlow` | a few passes |
| a budget of twenty trainings | `methods.IterativeMagnitude` or `methods.LearningRateRewinding` | many trainings |

In short trainings, methods that train the weights from the first epoch on are
often ahead of Gem-Miner at moderate sparsity. Gem-Miner is ahead where few
weights are left. The measurements are in [methods](../methods.md).

## What counts as prunable

Kernels are pruned: matrices, convolution kernels, embeddings, recurrent and
einsum kernels. Biases and normalization parameters are not. `PruningReport`
lists each weight with the reason, before anything is trained.
"""

# %%
import keras
from sklearn.datasets import load_digits

import tf_gems as gems

keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
images = images.reshape(-1, 8, 8, 1).astype("float32") / 16
x, y, test = images[:1400], labels[:1400], (images[1400:], labels[1400:])


def build():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10),
        ]
    )


print(gems.PruningReport(build()))

# %% [markdown]
"""
## How sparse?

Try a few sparsities, with the method that you intend to use and a fraction of
the epochs. The accuracy falls slowly at first and then steeply. Stay before
the steep part.

* 50 to 80 % costs little in most trained networks.
* 90 % and more needs several epochs of training after pruning.
* Above 95 % the distribution over the layers decides.
* Zeros save time only above two thirds (1x1 convolutions under XNNPACK), and
  bytes from about 40 % on.
"""

# %%
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model = build()
model.compile("adam", loss, metrics=["accuracy"])
model.fit(x, y, epochs=4, verbose=0)
weights = model.get_weights()

accuracy = {}
for sparsity in (0.5, 0.8, 0.95):
    model = build()
    model.set_weights(weights)
    sparse = gems.SparseModel(model, start="trained")
    sparse.compile("adam", loss, metrics=["accuracy"])
    callback = gems.GradualMagnitudeCallback(sparsity)
    sparse.fit(x, y, epochs=4, callbacks=[callback], verbose=0)
    accuracy[sparsity] = sparse.evaluate(*test, verbose=0)[1]
print(accuracy)

# %% [markdown]
"""
`gems.plan(model, speedup=3.0, max_bytes=3_000_000)` answers the question from
the other side: it returns the sparsity, the filters and the pattern that a
speed or a size takes, from a table of measurements. It says whether this very
network was measured, and how far off the estimate may be.

## How are the zeros spread over the layers?

Every method takes a `distribution` of the sparsity over the layers:

| `distribution` | the sparsity of a layer |
| --- | --- |
| `"global"` | follows from one ranking of all scores |
| `"uniform"` | is the same for each layer |
| `"erk"` | falls with the layer's size, by the Erdos-Renyi-kernel rule |
| `"lamp"` | follows from magnitudes relative to the layer (trained networks) |
| `"smart_ratio"` | falls with the depth (random tickets) |
| `{regular expression: sparsity}` | is the one that you give |

One global ranking of magnitudes destroys trained networks whose layers differ
in scale. That is why `"lamp"` is the default for magnitude methods, while
`"global"` is the default for methods that train or compute scores.

## What is kept or pruned together?

A `pattern` prunes groups of weights: `"2:4"` keeps two of four, `"4x1"` prunes
blocks of four, and `"channel"` whole channels. Patterns cost accuracy. They
pay where a runtime makes use of them. `gems.compact(model)` removes the
channels that are zero.
"""

# %%
sparse = gems.SparseModel(build(), seed=0)
method = gems.methods.Magnitude(0.75, distribution="erk", pattern="2:4")
ticket = method.find(sparse)
print(ticket)
