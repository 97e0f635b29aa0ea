"""A whole Keras model with trainable masks."""

import keras
from keras import ops

from tf_gems import initializers
from tf_gems import workers
from tf_gems.layers.calling import with_signature_of
from tf_gems.layers.gem_layer import GemLayer
from tf_gems.layers.zeros import freeze_zeros
from tf_gems.presets import get_preset
from tf_gems.ticket import Ticket


@keras.saving.register_keras_serializable(package="tf_gems")
class SparseModel(keras.Model):
    """Wraps a model to find a sparse subnetwork of it, and to train that.

    It starts in the *mining* phase, in which `fit` trains a score for every
    prunable weight, with the weights fixed; `finetune` switches to the phase
    in which `fit` trains the kept weights, with the masks fixed. See
    `tf_gems.GemLayer` for what is computed in each.

    The model is taken over, not copied: it becomes a part of this one.
    `tf_gems.strip` gives it back with exact zeros, `tf_gems.unwrap` without.

    Args:
        model: Built Keras 3 model of any kind, subclassed ones included.
        filters: Which weights to prune, see `tf_gems.PruningReport`.
            Defaults to all kernels.
        mask: See `tf_gems.GemLayer`. Defaults to `"round"`.
        score_initializer: Keras initializer. Defaults to uniform in [0, 1].
        kernel_initializer: Keras initializer for the prunable weights, such
            as `"signed_constant"`. Defaults to `None`: they stay as they are.
        seed: Integer from which scores, and kernels if initialized here, are
            drawn. Defaults to `None`: drawn by Python's generator.
        phase: `"mining"` or `"finetuning"`. Defaults to `"mining"`.
        candidates: See `tf_gems.GemLayer`.
        **kwargs: `name` and `dtype`, as for `keras.Model`.

    Raises:
        ValueError: If the model is not built, holds nothing prunable, or is
            not of Keras 3.

    Example:

    ```python
    sparse = tf_gems.SparseModel(model, seed=0)
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    sparse.fit(data, epochs=150, callbacks=[
        tf_gems.GemMinerCallback(target_sparsity=0.9856)])
    sparse.finetune()
    sparse.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    sparse.fit(data, epochs=150)
    ```
    """

    def __init__(
        self,
        model,
        filters=None,
        mask="round",
        score_initializer=None,
        kernel_initializer=None,
        seed=None,
        phase="mining",
        candidates=None,
        **kwargs,
    ):
        if isinstance(model, keras.layers.Layer):
            _refuse_unbuilt(model)
            kwargs.setdefault("dtype", model.dtype_policy)
            self.call = with_signature_of(model, self.call)
        super().__init__(**kwargs)
        self.autocast = False
        self.gem = GemLayer(
            model,
            filters=filters,
            mask=mask,
            score_initializer=score_initializer,
            seed=seed,
            phase=phase,
            candidates=candidates,
            name="gem",
        )
        self.kernel_initializer = kernel_initializer
        if kernel_initializer is not None:
            self.kernel_initializer = initializers.get(
                kernel_initializer, "kernel_initializer"
            )
            self._initialize_kernels()
            freeze_zeros(self.gem.prunable)
        self.built = True
        workers.join(self)

    def _initialize_kernels(self):
        for prunable, values in zip(
            self.gem.prunable, self.draw_kernels(self.gem.seed), strict=True
        ):
            prunable.weight.assign(values)

    def draw_kernels(self, seed, draw=0):
        """Draws values for the prunable weights from `kernel_initializer`.

        Args:
            seed: Integer.
            draw: Integer. Draw 0 of the model's own seed is what the model
                was initialized with; others are independent of it.

        Returns:
            List of tensors, one for each prunable weight.
        """
        depthwise = initializers.depthwise_kernels(self.model)
        drawn = []
        for index, prunable in enumerate(self.gem.prunable):
            weight = prunable.weight
            # Scores use the first seeds, kernels the next.
            initializer = initializers.reseed(
                self.kernel_initializer,
                seed,
                (1 + draw) * len(self.gem.prunable) + index,
            )
            if id(weight) in depthwise:
                initializer = initializers.per_channel(initializer)
            drawn.append(initializer(tuple(weight.shape), dtype=weight.dtype))
        return drawn

    @classmethod
    def from_preset(cls, preset, model, **kwargs):
        """Wraps a model with the settings of a preset.

        Args:
            preset: Name of a preset, such as `"paper"`; see
                `tf_gems.presets`.
            model: Built Keras 3 model.
            **kwargs: Arguments that replace those of the preset.
        """
        return cls(model, **{**get_preset(preset)["model"], **kwargs})

    def build(self, input_shape=None):
        pass  # built by its constructor

    def compile(self, *args, **kwargs):
        """Compiles the model, as `keras.Model.compile` does.

        After `tf_gems.strip` or `tf_gems.unwrap` it takes the wrapped model
        over again.
        """
        if not self.gem.taken:
            self.gem.take_over()
        super().compile(*args, **kwargs)

    def compile_from_config(self, config):
        config = keras.saving.deserialize_keras_object(config)
        self.compile(**config)
        self.optimizer.build(self.trainable_variables)

    def call(self, *args, training=None, **kwargs):
        return self.gem(*args, training=training, **kwargs)

    @property
    def model(self):
        """The wrapped model, with weights that are not masked."""
        return self.gem.layer

    @property
    def phase(self):
        """`"mining"` or `"finetuning"`."""
        return self.gem.phase

    @property
    def density(self):
        """Fraction of prunable weights that the model computes with now."""
        masks = self.gem.masks()
        kept = sum(int(ops.count_nonzero(m)) for m in masks)
        return kept / self.gem.size

    @property
    def sparsity(self):
        """Fraction of prunable weights that are masked now, `1 - density`."""
        return 1.0 - self.density

    def report(self):
        """Returns the `tf_gems.PruningReport`: what is prunable or not."""
        return self.gem.report

    def ticket(self, masks="alive"):
        """Returns the masks that mining found, with the starting weights.

        Args:
            masks: `"alive"`: all weights that are not frozen, the paper's
                ticket, of exactly the target sparsity. `"rounded"`: those
                among them that the network computes with at the end of
                mining, which can be fewer. Defaults to `"alive"`.

        Returns:
            `tf_gems.Ticket`.

        Raises:
            RuntimeError: If nothing has been pruned yet, or more weights are
                alive than the target of mining allows, because it was
                stopped early or earlier weights were brought back.
        """
        return Ticket.from_model(self, masks)

    def finetune(self, ticket=None):
        """Switches to fine-tuning: the masks are fixed, the weights train.

        Pruned weights are set to zero and stay masked, whatever the optimizer
        does. The model must be compiled again before `fit`.

        Args:
            ticket: `tf_gems.Ticket` to train. Defaults to `None`: the ticket
                that was just mined.

        Raises:
            RuntimeError: If nothing has been pruned yet.
            ValueError: If the ticket is of another network.
        """
        (ticket or self.ticket()).apply(self)

    def get_config(self):
        config = self.gem.get_config()
        model = config.pop("layer")
        initializer = self.kernel_initializer
        return {
            "name": self.name,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "model": model,
            "filters": config["filters"],
            "mask": config["mask"],
            "score_initializer": config["score_initializer"],
            "kernel_initializer": (
                initializer and keras.initializers.serialize(initializer)
            ),
            "seed": config["seed"],
            "phase": config["phase"],
            "candidates": config["candidates"],
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        for key in ("model", "filters"):
            if isinstance(config[key], dict):
                config[key] = keras.saving.deserialize_keras_object(
                    config[key], custom_objects
                )
        return cls(**config)


def _refuse_unbuilt(model):
    if not model.built:
        raise ValueError(
            "A model must be built before it is pruned. Received: "
            f"model='{model.name}', which has no weights yet. Call it once "
            "on data, or `model.build(input_shape)`."
        )
