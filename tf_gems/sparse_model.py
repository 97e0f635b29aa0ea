"""A whole Keras model with trainable masks."""

import contextlib
import functools
import inspect
import warnings

import keras
from keras import ops

from tf_gems import initializers
from tf_gems import training_logic
from tf_gems import workers
from tf_gems.gem_miner import get_preset
from tf_gems.layers.calling import with_signature_of
from tf_gems.layers.flags import unpack
from tf_gems.layers.gem_layer import GemLayer
from tf_gems.layers.pruning_scope import PruningScope
from tf_gems.layers.pruning_scope import hook
from tf_gems.layers.pruning_scope import scores_for_weights
from tf_gems.layers.zeros import freeze_zeros
from tf_gems.network import borrowed_network
from tf_gems.network import masked_network
from tf_gems.optimizers import ScoreOptimizer
from tf_gems.ticket import Ticket
from tf_gems.training_signs import sign_of_training
from tf_gems.validation import check_choice
from tf_gems.validation import check_eager

STARTS = ("initialization", "trained")


@keras.saving.register_keras_serializable(package="tf_gems")
class SparseModel(keras.Model):
    """Wraps a model to prune it, before or after training.

    With `start="trained"`, it prunes a trained model: `fit` continues to train
    the weights while a callback such as `tf_gems.GradualMagnitudeCallback`
    prunes the smallest of them.

    With `start="initialization"`, it finds a sparse subnetwork of a model that
    has not been trained. It starts in the *mining* phase, in which `fit`
    trains a score for every prunable weight while the weights are fixed.
    `start_finetuning` switches to the *fine-tuning* phase, in which `fit`
    trains the kept weights while the masks are fixed. See `tf_gems.GemLayer`
    for the computation in each phase.

    The model is not copied. `tf_gems.strip` returns it with exact zeros, and
    `tf_gems.unwrap` returns it without pruning.

    Args:
        model: Built Keras 3 model of any kind, subclassed ones included.
        filters: Which weights to prune, see `tf_gems.PruningReport`. Defaults
            to `None`: all kernels; with `start="trained"` all but depthwise
            ones (`"no_depthwise"`), which have few weights and are sensitive
            to pruning. `"all"` prunes these too.
        mask: See `tf_gems.GemLayer`. Defaults to `"round"`.
        score_initializer: Keras initializer. Defaults to uniform in [0, 1].
        kernel_initializer: Keras initializer for the prunable weights, such as
            `"signed_constant"`. Defaults to `None`: they keep their values. A
            warning is given if the model seems to be trained, because its
            trained weights are lost.
        seed: Integer, the seed of the scores, and of the kernels if they are
            initialized here. Defaults to `None`: drawn from Python's
            generator.
        phase: `"mining"` or `"finetuning"`. Defaults to `None`: the phase that
            belongs to `start`.
        candidates: See `tf_gems.GemLayer`.
        start: `"initialization"` or `"trained"`. Defaults to
            `"initialization"`.
        **kwargs: `name` and `dtype`, as for `keras.Model`.

    Raises:
        ValueError: If the model is not built, has no prunable weights, or is
            not a Keras 3 model.

    Example:

    ```python
    sparse = tf_gems.SparseModel(model, seed=0)
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    sparse.fit(data, epochs=150, callbacks=[
        tf_gems.GemMinerCallback(target_sparsity=0.9856)])
    sparse.start_finetuning()
    sparse.compile(keras.optimizers.SGD(0.01, momentum=0.9), loss)
    sparse.fit(data, epochs=150)
    ```

    A trained model:

    ```python
    sparse = tf_gems.SparseModel(model, start="trained")
    sparse.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
    sparse.fit(data, epochs=12, validation_data=validation, callbacks=[
        tf_gems.GradualMagnitudeCallback(0.9)])
    plain = tf_gems.strip(sparse)
    ```
    """

    _runs_own_steps = False

    def __init__(
        self,
        model,
        filters=None,
        mask="round",
        score_initializer=None,
        kernel_initializer=None,
        seed=None,
        phase=None,
        candidates=None,
        start="initialization",
        **kwargs,
    ):
        check_eager()
        trained = check_choice(start, "start", STARTS) == "trained"
        if trained:
            _refuse_contradictions(phase, kernel_initializer)
            filters = "no_depthwise" if filters is None else filters
        if phase is None:
            phase = "finetuning" if trained else "mining"
        if isinstance(model, keras.layers.Layer):
            _refuse_unbuilt(model)
            kwargs.setdefault("dtype", model.dtype_policy)
            self.call = with_signature_of(model, self.call)
        super().__init__(**kwargs)
        self.autocast = False
        self.gem = self._wrapped(
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
            _warn_of_lost_training(model, kernel_initializer)
            self._initialize_kernels()
            freeze_zeros(self.gem.prunable)
        self.built = True
        workers.prepare(self)

    def _wrapped(self, model, **kwargs):
        """Returns the `GemLayer` around the model."""
        return GemLayer(model, **kwargs)

    def _initialize_kernels(self):
        for prunable, values in zip(
            self.gem.prunable, self.draw_kernels(self.gem.seed), strict=True
        ):
            prunable.weight.assign(values)

    def draw_kernels(self, seed, draw=0):
        """Draws values for the prunable weights from `kernel_initializer`.

        Args:
            seed: Integer.
            draw: Integer. Draw 0 with the seed of the model gives its initial
                values; other draws are independent of them.

        Returns:
            List of tensors, one for each prunable weight.
        """
        weights = [prunable.weight for prunable in self.gem.prunable]
        # Scores use the first seeds, kernels the next.
        drawn_by = initializers.for_weights(
            self.kernel_initializer,
            self.model,
            weights,
            seed,
            (1 + draw) * len(weights),
        )
        return [
            initializer(tuple(weight.shape), dtype=weight.dtype)
            for weight, initializer in zip(weights, drawn_by, strict=True)
        ]

    @classmethod
    def from_preset(cls, preset, model, **kwargs):
        """Wraps a model with the settings of a preset.

        Args:
            preset: Name of a preset, such as `"paper"`; see
                `tf_gems.gem_miner.PRESETS`.
            model: Built Keras 3 model.
            **kwargs: Arguments that replace those of the preset.
        """
        return cls(model, **{**get_preset(preset)["model"], **kwargs})

    def build(self, input_shape=None):
        pass  # built by its constructor

    def compile(self, *args, **kwargs):
        """Compiles the model, as `keras.Model.compile` does.

        For mining, `optimizer="auto"` is
        `tf_gems.optimizers.ScoreOptimizer()`, which needs no learning rate.

        If the wrapped model has custom training methods, such as `train_step`,
        `compute_loss` or `metrics`, this calls `compile` of the wrapped model
        with the same arguments. `fit`, `evaluate` and `predict` then run these
        methods on the wrapped model with masked weights. This requires the
        TensorFlow backend. Custom `evaluate` and `predict` methods are called
        directly.

        After `tf_gems.strip` or `tf_gems.unwrap`, this wraps the model again.

        Args:
            *args: As for `compile` of the wrapped model.
            **kwargs: As for `compile` of the wrapped model.

        Raises:
            ValueError: If the training logic of the model is not supported: a
                custom `fit`, several optimizers, or custom steps on another
                backend.
        """
        self._prepare_to_compile()
        if args and args[0] == "auto":
            args = (ScoreOptimizer(), *args[1:])
        if kwargs.get("optimizer") == "auto":
            kwargs["optimizer"] = ScoreOptimizer()
        if not self._runs_own_steps:
            super().compile(*args, **kwargs)
            return
        self.model.compiled = False
        with _scores_of(self.gem):
            self.model.compile(*args, **kwargs)
        self._compile_like_wrapped()

    def _prepare_to_compile(self):
        if not self.gem.taken:
            self.gem.take_over()
        training_logic.refuse_loops(self.model)
        own = training_logic.overridden(self.model)
        training_logic.refuse_other_backends(self.model, own)
        on_tensorflow = keras.backend.backend() == "tensorflow"
        self._runs_own_steps = bool(own) and on_tensorflow

    def _compile_like_wrapped(self):
        model = self.model
        training_logic.refuse_other_optimizers(model)
        super().compile(
            optimizer=model.optimizer,
            run_eagerly=model.run_eagerly,
            steps_per_execution=model.steps_per_execution,
            jit_compile=model.jit_compile,
            auto_scale_loss=False,
        )
        self.loss = model.loss

    def get_compile_config(self):
        if self.compiled and self._runs_own_steps:
            return self.model.get_compile_config()
        return super().get_compile_config()

    def compile_from_config(self, config):
        self._prepare_to_compile()
        if self._runs_own_steps:
            with _scores_of(self.gem):
                self.model.compile_from_config(config)
                if getattr(self.model, "optimizer", None) is None:
                    return  # Keras has warned: its `compile` is its own
                self._compile_like_wrapped()
                self.optimizer.build(self.model.trainable_variables)
            return
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def train_step(self, *args):
        if self._runs_own_steps:
            if self.model.optimizer is not self.optimizer:
                self.model.optimizer = self.optimizer  # a fresh copy
            hook(self.optimizer)
            with PruningScope(self.gem) as scope:
                logs = self.model.train_step(*args)
            if self.phase == "mining" and not scope.applied:
                training_logic.refuse_unapplied(self.model)
            training_logic.warn_of_untrained(self.model, scope.untrained())
            return logs
        if keras.backend.backend() != "jax" or self.phase == "mining":
            return super().train_step(*args)
        logs, state = super().train_step(*args)
        return logs, self._with_zeros(state)

    def _with_zeros(self, state):
        """Returns the state of a step of JAX with zeros where it is pruned."""
        trainable, others, *rest = state
        flags = {
            id(v): value
            for v, value in zip(
                self.non_trainable_variables, others, strict=True
            )
        }
        alive = {id(w.weight): w.alive for w in self.gem.prunable}

        def with_zeros(variable, value):
            if id(variable) not in alive:
                return value
            words = flags[id(alive[id(variable)].packed)]
            mask = unpack(words, tuple(variable.shape))
            return ops.where(mask, value, ops.zeros_like(value))

        trainable = [
            with_zeros(variable, value)
            for variable, value in zip(
                self.trainable_variables, trainable, strict=True
            )
        ]
        return (trainable, others, *rest)

    def test_step(self, *args):
        if not self._runs_own_steps:
            return super().test_step(*args)
        with PruningScope(self.gem):
            return self.model.test_step(*args)

    def predict_step(self, *args):
        if not self._runs_own_steps:
            return super().predict_step(*args)
        with PruningScope(self.gem):
            return self.model.predict_step(*args)

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        if training and self.phase == "mining":
            training_logic.refuse_penalty_alone(self)
        if self._runs_own_steps:  # which was compiled with the loss
            return self.model.compute_loss(
                x, y, y_pred, sample_weight, training
            )
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    @property
    def metrics(self):
        return self.model.metrics if self._runs_own_steps else super().metrics

    def reset_metrics(self):
        if self._runs_own_steps:
            self.model.reset_metrics()
        else:
            super().reset_metrics()

    def get_metrics_result(self):
        if self._runs_own_steps:
            return self.model.get_metrics_result()
        return super().get_metrics_result()

    def quantize(self, *args, **kwargs):
        """Raises an error: strip the model first, then quantize it."""
        raise ValueError(
            "Weights must be pruned before they are quantized. Received: "
            f"`quantize` of '{self.name}'. Quantize the stripped model: "
            "`tf_gems.strip(sparse).quantize(...)`."
        )

    def export(self, filepath, *args, **kwargs):
        """Exports the wrapped model, masked, as `keras.Model.export` does.

        `tf_gems.export_saved_model` writes a smaller SavedModel, and runs it.

        Args:
            filepath: String or path.
            *args: As for `keras.Model.export`.
            **kwargs: As for `keras.Model.export`.
        """
        with masked_network(self) as model:
            return model.export(filepath, *args, **kwargs)

    def call(self, *args, training=None, **kwargs):
        return self.gem(*args, training=training, **kwargs)

    @functools.wraps(keras.Model.fit)
    def fit(self, *args, **kwargs):
        given = inspect.signature(keras.Model.fit).bind(self, *args, **kwargs)
        given.apply_defaults()
        callbacks = given.arguments["callbacks"]
        if isinstance(callbacks, list | tuple):
            for callback in callbacks:
                if hasattr(callback, "before_fit"):
                    callback.before_fit(self, given.arguments)
        own = self._runs_own_steps
        if self.compiled and not own and not self.optimizer.built:
            # A step that creates variables is traced again by TensorFlow.
            strategy = getattr(self, "distribute_strategy", None)
            with strategy.scope() if strategy else contextlib.nullcontext():
                self.optimizer.build(self.trainable_variables)
        history = super().fit(*args, **kwargs)
        self.gem.zero_pruned()
        return history

    @functools.wraps(keras.Model.evaluate)
    def evaluate(self, *args, **kwargs):
        if not training_logic.overridden(self.model, ("evaluate",)):
            return super().evaluate(*args, **kwargs)
        kwargs.pop("_use_cached_eval_dataset", None)  # `fit` keeps one here
        with borrowed_network(self) as model:
            return model.evaluate(*args, **kwargs)

    @functools.wraps(keras.Model.predict)
    def predict(self, *args, **kwargs):
        if not training_logic.overridden(self.model, ("predict",)):
            return super().predict(*args, **kwargs)
        with borrowed_network(self) as model:
            return model.predict(*args, **kwargs)

    @property
    def model(self):
        """The wrapped model, with its weights before masking."""
        return self.gem.layer

    @property
    def phase(self):
        """`"mining"` or `"finetuning"`."""
        return self.gem.phase

    @property
    def density(self):
        """Fraction of prunable weights that are kept now."""
        return sum(self.gem.count_kept()) / self.gem.size

    @property
    def sparsity(self):
        """Fraction of prunable weights that are masked now, `1 - density`."""
        return 1.0 - self.density

    def report(self):
        """Returns the `tf_gems.PruningReport` of the model."""
        return self.gem.report

    def ticket(self, masks="alive"):
        """Returns the masks that mining found, with the starting weights.

        Args:
            masks: `"alive"`: all weights that are not frozen, which is the
                ticket of the paper, with exactly the target sparsity.
                `"rounded"`: only the alive weights whose scores round to 1 at
                the end of mining. Defaults to `"alive"`.

        Returns:
            `tf_gems.Ticket`.

        Raises:
            RuntimeError: If nothing has been pruned yet, or more weights are
                alive than the target of mining allows, because mining was
                stopped early or earlier weights were restored.
        """
        return Ticket.from_model(self, masks)

    def start_finetuning(self, ticket=None):
        """Switches to fine-tuning: the masks are fixed and the weights train.

        Pruned weights are set to zero and stay zero with any optimizer. The
        model must be compiled again before `fit`.

        Args:
            ticket: `tf_gems.Ticket` to train. Defaults to `None`: the mined
                ticket.

        Raises:
            RuntimeError: If nothing has been pruned yet.
            ValueError: If the ticket belongs to another network.
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


def _scores_of(gem):
    """Returns a context in which a user's `compile` sees the scores."""
    if gem.phase == "mining":
        return scores_for_weights(gem)
    return contextlib.nullcontext()


def _refuse_unbuilt(model):
    if not model.built:
        raise ValueError(
            "A model must be built before it is pruned. Received: "
            f"model='{model.name}', which has no weights yet. Call it once "
            "on data, or `model.build(input_shape)`."
        )


def _refuse_contradictions(phase, kernel_initializer):
    """Raises an error for what a trained start excludes."""
    if phase not in (None, "finetuning"):
        raise ValueError(
            'With `start="trained"`, the weights of the model always train. '
            f"Received: start='trained', phase={phase!r}. Leave `phase` out."
        )
    if kernel_initializer is not None:
        raise ValueError(
            'With `start="trained"`, the model keeps its kernels. Received: '
            f"start='trained', kernel_initializer={kernel_initializer!r}, "
            "which reinitializes them. Leave `kernel_initializer` out to "
            "prune the trained weights, or `start` to mine an "
            "initialization."
        )


def _warn_of_lost_training(model, kernel_initializer):
    sign = sign_of_training(model)
    if sign is not None:
        warnings.warn(
            "`kernel_initializer` reinitializes all prunable kernels. "
            f"Received: kernel_initializer={kernel_initializer!r} for "
            f"'{model.name}', which seems to be trained: {sign}. Its trained "
            "weights are lost. To prune trained weights, use "
            '`SparseModel(model, start="trained")`; to mine, pass a model '
            "that was not trained.",
            stacklevel=3,
        )
