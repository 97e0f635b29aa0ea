# %% [markdown]
"""
# Use your own training loop

`tf_gems.SparseModel` prunes models that are trained with the `fit` method of
Keras. Many models override parts of it, or are trained without it. This guide
covers both cases.

## Custom `train_step`

On the TensorFlow backend, no change is needed. `SparseModel.compile` calls
`compile` of the wrapped model with the same arguments. `fit`, `evaluate` and
`predict` run its `train_step`, `test_step`, `predict_step`, `compute_loss`,
`compute_metrics` and `metrics` on the model itself. Weights are masked wherever
they are read. A sub-layer that the step calls directly, such as
`self.encoder(x)`, is therefore masked too. While mining,
`self.trainable_variables` are the scores.
"""

# %%
import keras
import numpy as np
import tensorflow as tf

import tf_gems as gems


class Autoencoder(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder = keras.layers.Dense(8, activation="relu")
        self.decoder = keras.layers.Dense(10)
        self.error = keras.metrics.Mean(name="error")

    @property
    def metrics(self):
        return [self.error]

    def call(self, x):
        return self.decoder(self.encoder(x))

    def train_step(self, x):
        with tf.GradientTape() as tape:
            code = self.encoder(x)
            error = keras.ops.mean((self.decoder(code) - x) ** 2)
        variables = self.trainable_variables
        gradients = tape.gradient(error, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        self.error.update_state(error)
        return {"error": self.error.result()}


x = np.random.default_rng(0).normal(size=(64, 10)).astype("float32")
model = Autoencoder()
model(x[:1])

sparse = gems.SparseModel(model, seed=0)
sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9))
mining = gems.GemMinerCallback(target_sparsity=0.5, freeze_period=1)
sparse.fit(x, epochs=4, verbose=0, callbacks=[mining])
sparse.start_finetuning()
sparse.compile("adam")
sparse.fit(x, epochs=2, verbose=0)
assert gems.strip(sparse) is model

# %% [markdown]
"""
The score penalty is added to the gradients that the compiled optimizer receives,
once per step. The step must therefore update the variables with `self.optimizer`.

The following raise an error before training:

* several optimizers, or an optimizer other than the compiled one;
* a step whose loss does not depend on any prunable weight;
* a custom `fit`, `train_on_batch` or `make_train_function`;
* custom steps on the JAX and torch backends.

## Several optimizers

Models that raise these errors can be pruned from the inside: put `SparseModel`s or
`GemLayer`s inside the model with the custom training step. Call them with
`training=True`, and add `sum(self.losses)` to the loss, which contains the score
penalty. If the model has its own `call(self, inputs, training=None)`, it must pass
`training` on to them; without this argument in `call`, Keras does not train these
layers. The following GAN has two pruned networks, each with its own optimizer.
"""


# %%
class GAN(keras.Model):
    def __init__(self, generator, discriminator):
        super().__init__()
        self.generator = generator
        self.discriminator = discriminator

    def compile(self, g_optimizer, d_optimizer):
        super().compile(optimizer=g_optimizer)
        self.d_optimizer = d_optimizer

    def call(self, noise):
        return self.discriminator(self.generator(noise))

    def train_step(self, real):
        batch = tf.shape(real)[0]
        noise = tf.random.normal((batch, 4))
        bce = keras.losses.BinaryCrossentropy(from_logits=True)
        one, zero = tf.ones((batch, 1)), tf.zeros((batch, 1))
        with tf.GradientTape() as tape:
            fake = self.generator(noise, training=True)
            d_loss = bce(one, self.discriminator(real, training=True))
            d_loss += bce(zero, self.discriminator(fake, training=True))
            d_loss += sum(self.discriminator.losses)
        variables = self.discriminator.trainable_variables
        gradients = tape.gradient(d_loss, variables)
        self.d_optimizer.apply_gradients(zip(gradients, variables, strict=True))
        with tf.GradientTape() as tape:
            fake = self.generator(noise, training=True)
            g_loss = bce(one, self.discriminator(fake))
            g_loss += sum(self.generator.losses)
        variables = self.generator.trainable_variables
        gradients = tape.gradient(g_loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return {"g_loss": g_loss, "d_loss": d_loss}


def dense(size, units):
    layers = [keras.layers.Dense(16, activation="relu")]
    layers = [keras.Input((size,)), *layers, keras.layers.Dense(units)]
    return keras.Sequential(layers)


generator = gems.SparseModel(dense(4, 10), seed=0)
discriminator = gems.SparseModel(dense(10, 1), seed=1)
gan = GAN(generator, discriminator)
gan(x[:1, :4])
gan.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
mining = gems.GemMinerCallback(
    target_sparsity=0.5, freeze_period=1, regularization=1e-4
)
gan.fit(x, epochs=4, batch_size=16, verbose=0, callbacks=[mining])

# %% [markdown]
"""
When the phase changes, every model that contains the `SparseModel` must be compiled
again, because its trainable variables change. One ticket contains both networks:
"""

# %%
ticket = gems.Ticket.from_model(gan)
ticket.apply(gan)
gan.compile(keras.optimizers.SGD(0.1), keras.optimizers.SGD(0.1))
gan.fit(x, epochs=1, batch_size=16, verbose=0)
plain = gems.strip(gan)
assert plain is gan and plain.generator is generator.model

# %% [markdown]
"""
## Training without `fit`

A loop without `fit` works the same way: pass `training=True`, add the losses of the
model, and update its `trainable_variables`. The methods in `tf_gems.methods` find a
ticket without `fit`; `sparse.start_finetuning(ticket)` then makes its weights
trainable.
"""

# %%
sparse = gems.SparseModel(dense(10, 1), seed=0)
sparse.start_finetuning(gems.methods.RandomPruning(0.5).find(sparse))
optimizer = keras.optimizers.Adam()


@tf.function
def step(x):
    with tf.GradientTape() as tape:
        loss = keras.ops.mean(sparse(x, training=True) ** 2)
        loss += sum(sparse.losses)
    variables = sparse.trainable_variables
    optimizer.apply_gradients(
        zip(tape.gradient(loss, variables), variables, strict=True)
    )
    return loss


step(x)
