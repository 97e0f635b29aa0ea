# %% [markdown]
"""
# Choose a method and a sparsity

This guide answers four questions: whether to prune before or after training,
which method to use, how sparse the network can be, and how to distribute the
zeros over the layers.

| starting point | method | cost of the search |
| --- | --- | --- |
| a trained model | `SparseModel(model, start="trained")` and `GradualMagnitudeCallback` | a quarter to a half of the training |
| a trained model, no further training | `methods.Magnitude(...).find(sparse, data)` | one pass over a few batches |
| an untrained model, a target above 97 % zeros | `GemMinerCallback` | one training |
| an untrained model, no search | `methods.Snip` or `methods.SynFlow` | a few passes |
| enough time for twenty trainings | `methods.IterativeMagnitude` or `methods.LearningRateRewinding` | many trainings |

With few epochs and moderate sparsity, methods that train the weights from the
first epoch on often reach a higher accuracy than Gem-Miner. Gem-Miner is better
when few weights are left. See the [comparison of methods](../methods.md).

## What counts as prunable

Kernels are prunable: dense and convolution kernels, embeddings, recurrent and
einsum kernels. Biases and normalization parameters are not. `PruningReport`
lists all weights with the reason, before any training.
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

Try a few sparsities with the method that you intend to use and a fraction of
the epochs. As the sparsity increases, the accuracy falls slowly at first and
then steeply. Choose a sparsity before the steep part.

* 50 to 80 % reduces the accuracy of most trained networks only slightly.
* 90 % and more needs several epochs of training after pruning.
* Above 95 %, the distribution over the layers has a large influence.
* Zeros reduce latency only above two thirds (1x1 convolutions with XNNPACK), and
  the file size from about 40 % on.
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
`gems.plan(model, speedup=3.0, max_bytes=3_000_000)` starts from the desired
speed-up or file size. It returns the required sparsity, filters and pattern
from a table of measurements. It states whether this network was measured, and
how large the error of the estimate may be.

## How are the zeros distributed over the layers?

Every method has an argument `distribution`:

| `distribution` | sparsity of each layer |
| --- | --- |
| `"global"` | follows from one ranking of the scores of all layers |
| `"uniform"` | is the same in all layers |
| `"erk"` | is lower in small layers (Erdős–Rényi-Kernel) |
| `"lamp"` | follows from a ranking of magnitudes relative to their layer, for trained networks |
| `"smart_ratio"` | increases with depth, for random tickets |
| `{regular expression: sparsity}` | is the given one |

Ranking the magnitudes of all layers together destroys trained networks whose
layers differ in scale. Therefore, `"lamp"` is the default of magnitude methods.
`"global"` is the default of methods that train or compute scores.

## Which weights are pruned together?

A `pattern` prunes groups of weights: `"2:4"` keeps two of four weights, `"4x1"`
prunes blocks of four, and `"channel"` prunes whole channels. Patterns reduce the
accuracy. Use them for runtimes that support them. `gems.compact(model)` removes
channels that are zero.
"""

# %%
sparse = gems.SparseModel(build(), seed=0)
method = gems.methods.Magnitude(0.75, distribution="erk", pattern="2:4")
ticket = method.find(sparse)
print(ticket)
