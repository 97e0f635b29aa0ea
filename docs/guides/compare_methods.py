# %% [markdown]
"""
# Compare methods and write your own

`gems.compare` trains every combination of methods, sparsities and seeds for the
same number of epochs, including the search. It saves each finished cell, so that
an interrupted run resumes. Processes that are started with the same directory
share the cells. With `executor=`, the workers of a `concurrent.futures.Executor`
run the cells ([many devices](many_devices.py)).

## A comparison
"""

# %%
import keras
import numpy as np
from sklearn.datasets import load_digits

import tf_gems as gems
from tf_gems.methods.method import present_weights

images, labels = load_digits(return_X_y=True)
images = images.astype("float32") / 16
train = [
    (images[i : i + 100], labels[i : i + 100]) for i in range(0, 1400, 100)
]
test = images[1400:], labels[1400:]


def build(seed):
    keras.utils.set_random_seed(seed)
    return keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(100, activation="relu"),
            keras.layers.Dense(10),
        ]
    )


loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
comparison = gems.compare(
    build,
    train,
    test,
    methods=["snip", "random"],
    sparsities=[0.9],
    epochs=3,
    directory="comparison",
    optimizer=keras.optimizers.SGD(0.1, momentum=0.9),
    loss=loss,
    seeds=(0, 1),
    verbose=0,
)
print(comparison)

# %% [markdown]
"""
`comparison.draw("pictures")` plots the accuracy over the density, the density of
each layer, and the cost. `tf_gems compare comparison` prints the table again.

## One method at a time

All methods have the same interface: `find` returns a ticket, which can be
applied, saved and trained.
"""

# %%
sparse = gems.SparseModel(build(0), seed=0)
sparse.compile("sgd", loss)
method = gems.methods.get("snip", target_sparsity=0.9, distribution="erk")
ticket = method.find(sparse, train)
print(ticket)

# %% [markdown]
"""
| name | method | trained during the search |
| --- | --- | --- |
| `"gem_miner"` | Gem-Miner; the ablations of the paper are arguments | scores |
| `"edge_popup"` | edge-popup; global, gradual and regularized variants are arguments | scores |
| `"snip"`, `"grasp"`, `"synflow"`, `"prospr"` | saliency at initialization | nothing |
| `"magnitude"`, `"random"` | one-shot pruning | nothing |
| `"imp"`, `"lr_rewinding"` | rounds of training and pruning, with rewinding of the weights or of the learning rate | weights |
| `"gradual_magnitude"`, `"rigl"`, `"set"`, `"acdc"` | gradual pruning, rewiring, or alternating compressed and dense phases within one training | weights |

Methods that train use the loss and the optimizer that the model is compiled
with. With `find(..., directory=...)` they resume after an interruption.

## Write your own

Subclass `gems.methods.Method` and implement `scores`, which returns an array
for each prunable weight. The weights with the largest scores are kept. The base
class handles the target sparsity, the distribution, the pattern and ties.

The following method multiplies the magnitude of a weight by the norm of the
input feature that it reads (Sun et al., 2023, "A Simple and Effective Pruning
Approach for Large Language Models", equation 1). It does so in the first layer
only.
"""


# %%
@keras.saving.register_keras_serializable(package="guide")
class InputMagnitude(gems.methods.Method):
    def scores(self, model, data):
        x = np.concatenate([np.asarray(x) for x, _ in data])
        activity = np.sqrt(np.mean(x**2, axis=0))
        weights = [np.abs(w) for w in present_weights(model)]
        weights[0] = weights[0] * activity[:, None]
        return weights


ticket = InputMagnitude(0.9).find(sparse, train)
print(ticket)

# %% [markdown]
"""
To compare your method with others, pass a dict of methods:
`methods={"mine": InputMagnitude(0.9), "snip": "snip"}`. To add it to the
library, see [CONTRIBUTING](../../CONTRIBUTING.md).

## Do the mask and the weights matter?

`gems.sanity.check` trains the ticket, the ticket with its masks shuffled within
each layer, and the ticket with its weights reinitialized. It reports a verdict
with a confidence interval. For `gems.compare`, pass `checks=("shuffled",)`.
"""


# %%
def fit(ticket, seed):
    sparse = gems.SparseModel(build(seed))
    ticket.apply(sparse)
    sparse.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    sparse.fit(np.concatenate([x for x, _ in train]), labels[:1400], verbose=0)
    return sparse


def evaluate(model):
    return model.evaluate(*test, verbose=0)[1]


print(gems.sanity.check(ticket, fit, evaluate, seeds=(0, 1)))

# %% [markdown]
"""
`gems.tuning.GemMinerHyperModel` tunes the settings of Gem-Miner with KerasTuner.
"""
