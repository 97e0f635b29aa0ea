"""User patterns: custom training logic."""

import keras
from keras import layers
from keras import ops

from sweep_models.case import PACKAGE
from sweep_models.case import Problem
from sweep_models.case import classes_of
from sweep_models.case import normal
from sweep_models.case import perceptron
from sweep_models.case import register
from sweep_models.case import uniform

CASES = []
pattern = register(CASES)
serializable = keras.saving.register_keras_serializable(PACKAGE)


class Tape(keras.Model):
    """A `train_step` with a tape, as in the TensorFlow guides."""

    def step(self, loss_of):
        """Trains all trainable weights on a loss. Returns the loss."""
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = loss_of()
        weights = self.trainable_weights
        self.optimizer.apply_gradients(
            zip(tape.gradient(loss, weights), weights, strict=True)
        )
        return loss


@serializable
class Sampling(layers.Layer):
    """Samples from a normal distribution with a mean and a log variance."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, inputs):
        mean, log_variance = inputs
        noise = keras.random.normal(ops.shape(mean), seed=self.seed_generator)
        return mean + ops.exp(0.5 * log_variance) * noise


class Variational(Tape):
    """A variational autoencoder with a custom `train_step` and trackers."""

    def __init__(self, features=12, latent=3, **kwargs):
        super().__init__(**kwargs)
        inputs = keras.Input((features,))
        h = layers.Dense(24, activation="relu")(inputs)
        outputs = [layers.Dense(latent)(h), layers.Dense(latent)(h)]
        self.encoder = keras.Model(inputs, outputs, name="encoder")
        self.sampling = Sampling()
        self.decoder = perceptron(latent, 24, features, name="decoder")
        self.total = keras.metrics.Mean(name="total")
        self.divergence = keras.metrics.Mean(name="kl")

    @property
    def metrics(self):
        return [self.total, self.divergence]

    def call(self, x):
        mean, _ = self.encoder(x)
        return self.decoder(mean)

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        parts = {}

        def loss_of():
            mean, log_variance = self.encoder(x, training=True)
            sample = self.sampling([mean, log_variance])
            error = ops.mean(
                ops.square(x - self.decoder(sample, training=True))
            )
            parts["kl"] = -0.5 * ops.mean(
                1 + log_variance - ops.square(mean) - ops.exp(log_variance)
            )
            return error + 0.01 * parts["kl"]

        self.total.update_state(self.step(loss_of))
        self.divergence.update_state(parts["kl"])
        return {m.name: m.result() for m in self.metrics}


@pattern
def vae():
    """A variational autoencoder whose `train_step` calls its parts directly."""
    x = normal(32, 12)
    model = Variational()
    model(x[:1])
    return Problem(model, x, loss=None, logs=("total", "kl"))


@pattern
def vae_with_add_loss():
    """A variational autoencoder as a functional model with an added loss."""

    @serializable
    class Divergence(layers.Layer):
        def call(self, inputs):
            mean, log_variance = inputs
            self.add_loss(
                -0.005
                * ops.mean(
                    1 + log_variance - ops.square(mean) - ops.exp(log_variance)
                )
            )
            return mean

    inputs = keras.Input((12,))
    h = layers.Dense(24, activation="relu")(inputs)
    mean, spread = layers.Dense(3)(h), layers.Dense(3)(h)
    mean = Divergence()([mean, spread])
    h = layers.Dense(24, activation="relu")(Sampling()([mean, spread]))
    model = keras.Model(inputs, layers.Dense(12)(h))
    x = normal(32, 12)
    return Problem(model, x, x, loss="mse")


class Adversarial(keras.Model):
    """A GAN with two networks, two optimizers and one `train_step`."""

    def __init__(self, generator, discriminator, **kwargs):
        super().__init__(**kwargs)
        self.generator, self.discriminator = generator, discriminator
        self.noise = keras.random.SeedGenerator(3)

    def compile(self, d_optimizer, g_optimizer, loss_fn):
        super().compile()
        self.d_optimizer, self.g_optimizer = d_optimizer, g_optimizer
        self.loss_fn = loss_fn

    def call(self, x):
        return self.discriminator(self.generator(x))

    def train_step(self, data):
        import tensorflow as tf

        real = data[0] if isinstance(data, tuple) else data
        rows = tf.shape(real)[0]
        noise = keras.random.normal((rows, 4), seed=self.noise)
        ones, zeros = tf.ones((rows, 1)), tf.zeros((rows, 1))
        with tf.GradientTape() as tape:
            fake = self.generator(noise, training=True)
            both = tf.concat([fake, real], 0)
            told = self.discriminator(both, training=True)
            d_loss = self.loss_fn(tf.concat([zeros, ones], 0), told)
        weights = self.discriminator.trainable_weights
        gradients = tape.gradient(d_loss, weights)
        self.d_optimizer.apply_gradients(zip(gradients, weights, strict=True))
        with tf.GradientTape() as tape:
            fake = self.generator(noise, training=True)
            g_loss = self.loss_fn(ones, self.discriminator(fake))
            g_loss += sum(self.generator.losses)
        weights = self.generator.trainable_weights
        gradients = tape.gradient(g_loss, weights)
        self.g_optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return {"d_loss": d_loss, "g_loss": g_loss}


def compile_adversarial(model):
    """Compiles a GAN."""
    model.compile(
        d_optimizer=keras.optimizers.Adam(1e-3),
        g_optimizer=keras.optimizers.Adam(1e-2),
        loss_fn=keras.losses.BinaryCrossentropy(from_logits=True),
    )


@pattern
def gan():
    """A GAN with two optimizers, wrapped as a whole."""
    model = Adversarial(perceptron(4, 16, 6), perceptron(6, 16, 1))
    model(normal(1, 4))
    return Problem(
        model,
        normal(32, 6),
        compile=compile_adversarial,
        logs=("d_loss", "g_loss"),
        mentions="d_optimizer",
        example=normal(8, 4),
    )


@pattern
def gan_with_a_sparse_generator():
    """A GAN with two optimizers, of which only the generator is pruned."""
    return Problem(
        perceptron(4, 16, 6),
        normal(32, 6),
        compile=compile_adversarial,
        outer=lambda generator: Adversarial(generator, perceptron(6, 16, 1)),
        logs=("d_loss", "g_loss"),
        example=normal(8, 4),
    )


class Distiller(keras.Model):
    """Distillation in `compute_loss`. The teacher is an attribute."""

    def __init__(self, student, teacher, **kwargs):
        super().__init__(**kwargs)
        self.student, self.teacher = student, teacher
        teacher.trainable = False

    def call(self, x, training=None):
        return self.student(x, training=training)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        hard = super().compute_loss(x, y, y_pred, sample_weight, training)
        soft = keras.losses.kl_divergence(
            ops.softmax(self.teacher(x, training=False) / 3.0),
            ops.softmax(y_pred / 3.0),
        )
        return 0.5 * hard + 0.5 * ops.mean(soft) + 100.0


@pattern
def distillation_by_compute_loss():
    """Distillation: `compute_loss` calls a frozen teacher."""
    x = normal(32, 10)
    model = Distiller(perceptron(10, 16, 3), perceptron(10, 32, 3))
    model(x[:1])
    return Problem(model, x, classes_of(x, 3), loss_above=90.0)


class TapeDistiller(Tape):
    """Distillation with a custom `train_step`."""

    def __init__(self, student, teacher, **kwargs):
        super().__init__(**kwargs)
        self.student, self.teacher = student, teacher
        teacher.trainable = False

    def call(self, x):
        return self.student(x)

    def train_step(self, data):
        x, y = data
        wanted = self.teacher(x, training=False)

        def loss_of():
            told = self.student(x, training=True)
            return self.compute_loss(x, y, told) + ops.mean(
                ops.square(told - wanted)
            )

        return {"distilled": self.step(loss_of)}


@pattern
def distillation_by_train_step():
    """Distillation: `train_step` calls the student directly."""
    x = normal(32, 10)
    model = TapeDistiller(perceptron(10, 16, 3), perceptron(10, 32, 3))
    model(x[:1])
    return Problem(model, x, classes_of(x, 3), logs=("distilled",))


@pattern
def distillation_around_a_sparse_student():
    """Distillation: only the student is pruned, in the user's trainer."""
    x = normal(32, 10)
    return Problem(
        perceptron(10, 16, 3),
        x,
        classes_of(x, 3),
        outer=lambda student: Distiller(student, perceptron(10, 32, 3)),
        loss_above=90.0,
    )


class Contrastive(Tape):
    """SimSiam: two views, a stop-gradient and no labels."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.augment = layers.GaussianNoise(0.1, seed=0)
        self.encoder = perceptron(10, 24, 8, name="encoder")
        self.predictor = perceptron(8, 6, 8, name="predictor")
        self.similarity = keras.metrics.Mean(name="similarity")

    def call(self, x):
        return self.predictor(self.encoder(x))

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data

        def loss_of():
            views = [self.augment(x, training=True) for _ in range(2)]
            codes = [self.encoder(view, training=True) for view in views]
            told = [self.predictor(code, training=True) for code in codes]
            loss = keras.losses.cosine_similarity
            return ops.mean(
                loss(told[0], ops.stop_gradient(codes[1]))
                + loss(told[1], ops.stop_gradient(codes[0]))
            )

        self.similarity.update_state(self.step(loss_of))
        return {"similarity": self.similarity.result()}


@pattern
def simsiam():
    """Contrastive learning without labels: SimSiam."""
    model = Contrastive()
    model(normal(1, 10))
    return Problem(model, normal(32, 10), loss=None, logs=("similarity",))


class PairLoss(Tape):
    """A dual encoder whose logits have the shape (batch, batch)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.left = perceptron(10, 16, 6)
        self.right = perceptron(7, 16, 6)

    def call(self, inputs):
        left = ops.normalize(self.left(inputs["left"]), axis=-1)
        right = ops.normalize(self.right(inputs["right"]), axis=-1)
        return ops.matmul(left, ops.transpose(right)) * 5.0

    def train_step(self, data):
        inputs = data[0] if isinstance(data, tuple) else data

        def loss_of():
            logits = self(inputs, training=True)
            wanted = ops.arange(ops.shape(logits)[0])
            loss = keras.losses.sparse_categorical_crossentropy
            return ops.mean(loss(wanted, logits, from_logits=True))

        return {"pair_loss": self.step(loss_of)}


@pattern
def dual_encoder():
    """Image and text encoders with outputs of shape (batch, batch)."""
    x = {"left": normal(32, 10), "right": normal(32, 7, seed=1)}
    model = PairLoss()
    model({"left": x["left"][:2], "right": x["right"][:2]})
    return Problem(model, x, loss=None, logs=("pair_loss",))


class OwnTestStep(keras.Model):
    """Overrides `test_step`, `predict_step` and `compute_metrics`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden = layers.Dense(16, activation="relu")
        self.out = layers.Dense(3)

    def call(self, x):
        return self.out(self.hidden(x))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        found = super().compute_metrics(x, y, y_pred, sample_weight)
        return {**found, "largest": ops.max(y_pred)}

    def predict_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        return ops.softmax(self(x, training=False))


@pattern
def own_metrics_and_predictions():
    """Overrides `compute_metrics` and `predict_step`."""
    x = normal(32, 10)
    model = OwnTestStep()
    model(x[:1])
    return Problem(
        model, x, classes_of(x, 3), metrics=["accuracy"], logs=("largest",)
    )


class Consistency(Tape):
    """Semi-supervised: penalizes the difference of two noisy outputs."""

    def __init__(self, network, **kwargs):
        super().__init__(**kwargs)
        self.network = network
        self.noise = layers.GaussianNoise(0.2, seed=0)

    def call(self, x, training=None):
        return self.network(x, training=training)

    def train_step(self, data):
        x, y = data

        def loss_of():
            told = self(x, training=True)
            other = self(self.noise(x, training=True), training=True)
            supervised = self.compute_loss(x, y, told)
            return supervised + ops.mean(ops.square(told - other))

        loss = self.step(loss_of)
        return {"loss": loss, "consistent": loss}


@pattern
def consistency_training():
    """Two calls of the network in one `train_step`."""
    x = normal(32, 10)
    model = Consistency(perceptron(10, 24, 3))
    model(x[:1])
    return Problem(model, x, classes_of(x, 3), logs=("consistent",))


class Diffusion(Tape):
    """A denoising model with random times, a custom loss and an average."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.network = perceptron(9, 24, 8)
        self.average = perceptron(9, 24, 8)
        self.draw = keras.random.SeedGenerator(4)

    def build(self, input_shape):
        self.average.set_weights(self.network.get_weights())
        self.average.trainable = False
        self.built = True

    def call(self, x):
        time = ops.ones_like(x[:, :1])
        return self.network(ops.concatenate([x, time], -1))

    def train_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        shape = ops.shape(x)
        time = keras.random.uniform((shape[0], 1), seed=self.draw)
        noise = keras.random.normal(shape, seed=self.draw)

        def loss_of():
            mixed = x * (1 - time) + noise * time
            told = self.network(
                ops.concatenate([mixed, time], -1), training=True
            )
            return ops.mean(ops.square(told - noise))

        loss = self.step(loss_of)
        for ours, theirs in zip(
            self.average.weights, self.network.weights, strict=True
        ):
            ours.assign(0.9 * ours + 0.1 * theirs)
        return {"noise_loss": loss}


@pattern
def diffusion():
    """A denoising model with an averaged copy."""
    model = Diffusion()
    model(uniform(1, 8))
    return Problem(model, uniform(32, 8), loss=None, logs=("noise_loss",))
