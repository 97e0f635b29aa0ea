"""Training data in the memory of the accelerator, for the JAX backend."""

import keras
import numpy as np
from keras import ops

from tf_gems import _keras


class DeviceData:
    """Small images in device memory, so that an epoch is one program.

    `fit` of Keras transfers every batch from the host, so a small network on a
    fast accelerator waits for its data. With this class, one compiled loop
    over the steps of an epoch selects, crops and flips images and runs Keras'
    own `train_step`. `tf_gems.methods` and `tf_gems.training.train` accept it
    as data.

    The random numbers of an epoch depend only on the seed and the epoch, so a
    resumed run gives the same result. A smaller last batch is left out,
    because all steps of a compiled program have the same shape.

    Args:
        images: Array `(n, height, width, channels)`, float32.
        labels: Integer array `(n,)`.
        batch_size: Positive integer, at most `n`.
        seed: Integer, the seed of order, crops and flips. Defaults to `0`.
        padding: Integer, pixels by which images are padded with zeros before
            they are randomly cropped. Defaults to `0`.
        flip: Whether images are randomly flipped. Defaults to `False`.

    Raises:
        ValueError: If the batch is larger than the data.
        RuntimeError: On another backend than JAX.

    Example:

    ```python
    data = DeviceData(images, labels, 128, padding=4, flip=True)
    ticket = tf_gems.methods.GemMiner(0.9856).find(sparse, data)
    ```
    """

    def __init__(
        self, images, labels, batch_size, seed=0, padding=0, flip=False
    ):
        if keras.backend.backend() != "jax":
            raise RuntimeError(
                "Data on the device requires the JAX backend. Received: "
                f"backend='{keras.backend.backend()}'. Set KERAS_BACKEND=jax, "
                "or use a `tf.data` pipeline."
            )
        if not 0 < batch_size <= len(labels):
            raise ValueError(
                "A batch must not be larger than the data. Received: "
                f"batch_size={batch_size} for {len(labels)} examples."
            )
        self.images = ops.convert_to_tensor(images, "float32")
        self.labels = ops.convert_to_tensor(labels, "int32")
        self.batch_size = batch_size
        self.seed = seed
        self.padding = padding
        self.flip = flip

    def __len__(self):
        return len(self.labels) // self.batch_size

    def __iter__(self):
        """Yields the batches of the first epoch, without crops and flips."""
        order = np.random.default_rng(self.seed).permutation(len(self.labels))
        for places in np.split(order[: len(self) * self.batch_size], len(self)):
            yield self.images[places], self.labels[places]

    def fit(self, model, epochs, callbacks=(), verbose=0):
        """Trains a compiled model, as `model.fit` does.

        Callbacks see epochs, no batches.
        """
        model.test_on_batch(self.images[:1], self.labels[:1])  # builds metrics
        model.optimizer.build(model.trainable_variables)
        model.stop_training = False
        _keras.set_initial_epoch(model, None)  # `Backup` sets it
        callbacks = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            model=model,
            verbose=verbose,
            epochs=epochs,
            steps=len(self),
        )
        callbacks.on_train_begin()
        program = self._compile(model)
        for epoch in range(_keras.initial_epoch(model) or 0, epochs):
            callbacks.on_epoch_begin(epoch)
            model.reset_metrics()
            variables = (
                model.trainable_variables,
                model.non_trainable_variables,
                model.optimizer.variables,
                model.metrics_variables,
            )
            state = [[v.value for v in group] for group in variables]
            state = program(state, epoch, self.images, self.labels)
            for group, values in zip(variables, state, strict=True):
                for variable, value in zip(group, values, strict=True):
                    variable.assign(value)
            logs = {k: float(v) for k, v in model.get_metrics_result().items()}
            callbacks.on_epoch_end(epoch, logs)
            if model.stop_training:
                break
        callbacks.on_train_end()
        return model.history

    def _compile(self, model):
        import jax

        def step(state, drawn, images, labels):
            places, key = drawn
            batch = self._augment(images[places], key)
            _, state = model.train_step(state, (batch, labels[places]))
            # As `lax.scan` asks: lists of the same types go round.
            return [list(group) for group in state], None

        def run(state, epoch, images, labels):
            key = jax.random.fold_in(jax.random.key(self.seed), epoch)
            order_key, key = jax.random.split(key)
            order = jax.random.permutation(order_key, len(labels))
            order = order[: len(self) * self.batch_size]
            drawn = (
                order.reshape(len(self), self.batch_size),
                jax.random.split(key, len(self)),
            )
            state, _ = jax.lax.scan(
                lambda state, drawn: step(state, drawn, images, labels),
                state,
                drawn,
            )
            return state

        return jax.jit(run)

    def _augment(self, images, key):
        import jax

        crop_key, flip_key = jax.random.split(key)
        count, height, width, channels = images.shape
        if self.padding:
            sides = [(self.padding, self.padding)] * 2
            padded = ops.pad(images, [(0, 0), *sides, (0, 0)])
            corners = jax.random.randint(
                crop_key, (count, 2), 0, 2 * self.padding + 1
            )
            images = jax.vmap(
                lambda image, corner: jax.lax.dynamic_slice(
                    image, (*corner, 0), (height, width, channels)
                )
            )(padded, corners)
        if self.flip:
            flipped = jax.random.bernoulli(flip_key, shape=(count, 1, 1, 1))
            images = ops.where(flipped, images[:, :, ::-1], images)
        return images
