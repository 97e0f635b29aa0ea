# %% [markdown]
"""
# Mine a gem

A *rare gem* is a sparse subnetwork of a randomly initialized network that is
accurate before any of its weights is trained. Gem-Miner finds it by training a
score for every weight while the weights stay fixed. A weight is kept if its
score exceeds 0.5.

This guide mines a gem in a small network, saves it as a ticket, fine-tunes its
weights, and returns a plain Keras model.

## Data and a network

The digits data set of scikit-learn has 1,797 images of 8 x 8 pixels. The network
can be any built Keras 3 model: Sequential, functional, subclassed or nested.
"""

# %%
import keras
from sklearn.datasets import load_digits

import tf_gems as gems

keras.utils.set_random_seed(0)
images, labels = load_digits(return_X_y=True)
x, y = images[:1400] / 16, labels[:1400]
test = images[1400:] / 16, labels[1400:]

model = keras.Sequential(
    [
        keras.Input((64,)),
        keras.layers.Dense(300, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Dense(100, use_bias=False),
        keras.layers.BatchNormalization(),
        keras.layers.ReLU(),
        keras.layers.Dense(10),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# %% [markdown]
"""
## Mine

`SparseModel` wraps the model. `kernel_initializer="signed_constant"` replaces
the values of the kernels: each weight of a layer is plus or minus one constant,
as in the paper. The `seed` determines scores and kernels.

`GemMinerCallback` prunes during `fit`. `target_sparsity` is the fraction of zeros
at the end. At the beginning of every `freeze_period`-th epoch, the weights with
the lowest scores are frozen, which means that they stay pruned.
"""

# %%
sparse = gems.SparseModel(model, kernel_initializer="signed_constant", seed=0)
sparse.compile("auto", loss, metrics=["accuracy"])
mining = gems.GemMinerCallback(target_sparsity=0.95, freeze_period=1)
history = sparse.fit(
    x, y, epochs=20, validation_data=test, callbacks=[mining], verbose=0
)
print(history.history["sparsity"][-1], history.history["val_accuracy"][-1])

# %% [markdown]
"""
Mining needs only a target sparsity and a number of epochs. With `"auto"`, the
scores train with `gems.optimizers.ScoreOptimizer`. It is Adam with a learning
rate that is derived from the number of steps. Any Keras optimizer can be used
instead, for example SGD with momentum and a learning rate between 0.1 (for 150
epochs) and 3 (for 10 epochs). A penalty on the scores reduces the number of
weights that are kept. Its weight is adapted at every step, so that the density
falls geometrically to the target.

The logs of each epoch contain the `sparsity` and `density` of the network,
`alive_density`, the fraction of weights that are not frozen, and
`regularization`, the weight of the penalty.

The settings of the authors are available as a preset:
`gems.GemMinerCallback.from_preset("paper", target_sparsity=0.9856)`. The paper
calls the density sparsity: its 1.44 % is a target sparsity of 0.9856 here.

## The ticket

A ticket consists of the masks and the initial weights. The file is small: it
stores the positions of the kept weights near their entropy, and one sign bit for
each.
"""

# %%
ticket = sparse.ticket()
ticket.save("digits.gem")
print(ticket)
gem_accuracy = sparse.evaluate(*test, verbose=0)[1]

# %% [markdown]
"""
`tf_gems inspect digits.gem` prints the contents of a ticket file, without
importing TensorFlow. A ticket file is data: reading it runs no code.
`gems.Ticket.load("digits.gem")` reads it, and `ticket.apply(model)` sets the
masks and weights of a model with the same architecture.
`tf_gems expand digits.gem --output=digits.keras` writes a Keras model.

## Fine-tune

`start_finetuning` fixes the masks and makes the weights trainable. It does not
train by itself. The model must be compiled again, because its trainable
variables change.
"""

# %%
sparse.start_finetuning()
steps = 20 * 44  # 44 batches of 32 in each epoch
rate = keras.optimizers.schedules.CosineDecay(0.1, decay_steps=steps)
sparse.compile(
    keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"]
)
sparse.fit(x, y, epochs=20, validation_data=test, verbose=0)
tuned_accuracy = sparse.evaluate(*test, verbose=0)[1]
print(f"{gem_accuracy:.1%} mined, {tuned_accuracy:.1%} fine-tuned")

# %% [markdown]
"""
Both accuracies vary with the seed. Over the seeds 0 to 4, the medians are 93.7 %
before and 94.5 % after fine-tuning
(`benchmarks/results/mine_a_gem_seeds.json`).

## Return your own model

`strip` returns the model that was wrapped, the same object, with exact zeros
in its kernels. The model depends on Keras only.
"""

# %%
plain = gems.strip(sparse)
plain.save("digits.keras")

# %% [markdown]
"""
## Next steps

* [Deploy](deploy.py) writes TFLite files and SavedModels.
* [Choose a method and a sparsity](choose_a_method.py) explains when to use other
  methods.
* [Many devices and long runs](many_devices.py) covers several GPUs, clusters,
  and resuming interrupted runs.
* A [recipe](../recipes.md) mines, fine-tunes and exports a network on one
  dataset, for example `python recipes/digits.py --preset=short`.
"""
