# %% [markdown]
"""
# Compare methods and write your own

`gems.compare` runs methods, sparsities and seeds at the same number of epochs,
the search included. It saves each finished cell, so that a run that was killed
resumes, and processes that are started with the same directory share the work.
`executor=` runs the cells on the workers of a `concurrent.futures.Executor`
([many devices](many_devices.py)).

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
`comparison.draw("pictures")` draws the accuracy over the density, the density
of each layer, and the cost. `tf_gems compare comparison` prints the table
again.

## One method at a time

All methods have one call. What they return is a ticket, which can be applied,
saved and trained.
"""

# %%
sparse = gems.SparseModel(build(0), seed=0)
sparse.compile("sgd", loss)
method = gems.methods.get("snip", target_sparsity=0.9, distribution="erk")
ticket = method.find(sparse, train)
print(ticket)

# %% [markdown]
"""
| name | what it is | trains to find the ticket |
| --- | --- | --- |
| `"gem_miner"` | Gem-Miner; the ablations of the paper are arguments | scores |
| `"edge_popup"` | layerwise; global, gradual and regularized by arguments | scores |
| `"snip"`, `"grasp"`, `"synflow"`, `"prospr"` | saliency at initialization | nothing |
| `"magnitude"`, `"random"` | one shot | nothing |
| `"imp"`, `"lr_rewinding"` | rounds of training and pruning, with rewound weights or a rewound learning rate | weights |
| `"gradual_magnitude"`, `"rigl"`, `"set"`, `"acdc"` | prune, rewire, or alternate compressed and dense phases, within one training | weights |

Methods that train use the loss and the optimizer that the model is compiled
with. `find(..., directory=...)` lets them resume after a crash.

## Write your own

Subclass `gems.methods.Method` and implement `scores`, which returns an array
for each prunable weight. The largest scores are kept. Target sparsity,
distribution, pattern and ties are handled by the base class.

This method scores a weight by its magnitude times the mean activity of the
input that it reads (Sun et al., 2023, "A Simple and Effective Pruning Approach
for Large Language Models", equation 1), in the first layer only.
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
Your method takes part in a comparison as a value of a dict of methods:
`methods={"mine": InputMagnitude(0.9), "snip": "snip"}`. To add it to the
library, see [CONTRIBUTING](../../CONTRIBUTING.md).

## Is a ticket more than its densities?

`gems.sanity.check` trains the ticket, the ticket with its masks shuffled within
each layer, and the ticket with its weights drawn anew. It gives a verdict with
a confidence interval. In `gems.compare`, pass `checks=("shuffled",)`.
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
`gems.tuning.GemMinerHyperModel` lets KerasTuner choose the settings of
Gem-Miner.
"""
