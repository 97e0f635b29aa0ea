"""A layer that prunes another layer by trainable masks."""

import itertools
import math
import random
import threading

import keras
import numpy as np
from keras import ops

from tf_gems import _keras
from tf_gems import initializers
from tf_gems import registry
from tf_gems.layers import wrapped_variable
from tf_gems.layers.calling import RecordingScope
from tf_gems.layers.calling import add_state
from tf_gems.layers.calling import after
from tf_gems.layers.calling import inlined_functions
from tf_gems.layers.calling import refuse_other_keras
from tf_gems.layers.calling import refuse_quantized
from tf_gems.layers.calling import to_symbol
from tf_gems.layers.calling import with_signature_of
from tf_gems.layers.mask import RoundMask
from tf_gems.layers.prunable_weight import PrunableWeight
from tf_gems.layers.top_k_mask import TopKMask
from tf_gems.layers.training_guard import forget_steps
from tf_gems.layers.training_guard import remove_guards
from tf_gems.layers.training_guard import set_guards
from tf_gems.layers.zeros import freeze_zeros
from tf_gems.layers.zeros import nonzero
from tf_gems.pruning_report import PruningReport
from tf_gems.pruning_report import check_filters
from tf_gems.pruning_report import unique_paths
from tf_gems.validation import check_choice
from tf_gems.validation import check_integer
from tf_gems.validation import check_list

MASKS = {"round": RoundMask, "top_k": TopKMask}
PHASES = ("mining", "finetuning")


@keras.saving.register_keras_serializable(package="tf_gems")
class GemLayer(keras.layers.Wrapper):
    """Prunes any Keras layer or model by trainable masks.

    While mining, the wrapped layer computes `f(w * m(p) * q; x)` with its
    weights `w` fixed: only the scores `p` train, through the straight-through
    gradient of the mask `m`. A frozen weight (`q = 0`) gets no gradient and
    never returns. While fine-tuning it computes `f(w * q; x)` and the weights
    train. Normalization statistics move in both phases.

    Any layer can be wrapped. It is called as a pure function of its variables,
    with masked weights in place of the prunable ones.

    The wrapped layer becomes a sub-layer of this one. While mining, its
    weights do not train, even if they are `trainable`. `tf_gems.strip` returns
    the wrapped layer.

    Args:
        layer: Keras layer, or built Keras model.
        filters: Which weights to prune, see `tf_gems.PruningReport`.
            Defaults to all kernels.
        mask: `"round"`, `"top_k"`, or an instance of
            `tf_gems.layers.RoundMask` or `tf_gems.layers.TopKMask`.
            Defaults to `"round"`.
        score_initializer: Keras initializer. Defaults to uniform in [0, 1].
        seed: Integer, the seed of the scores. Defaults to `None`: drawn once
            from Python's generator, which `keras.utils.set_random_seed` seeds.
        phase: `"mining"` or `"finetuning"`. Defaults to `"mining"`.
        candidates: List of integers, indices into `layer.weights` of the
            weights that can be pruned and trained. They are saved, because
            `trainable` can change later. Defaults to `None`: the weights that
            are trainable now.
        **kwargs: Keyword arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If no weight can be pruned, or the layer is of Keras 2.

    Example:

    ```python
    model = keras.Sequential([
        keras.Input((784,)),
        tf_gems.GemLayer(keras.layers.Dense(300, activation="relu")),
        keras.layers.Dense(10),
    ])
    ```

    Reference: Sreenivasan et al., 2022, "Rare Gems", Algorithm 1.
    """

    def __init__(
        self,
        layer,
        filters=None,
        mask="round",
        score_initializer=None,
        seed=None,
        phase="mining",
        candidates=None,
        **kwargs,
    ):
        refuse_other_keras(layer)
        # Keras finds masks, `training` and the first input by the signature.
        self.call = with_signature_of(layer, self.call)
        # Weights are masked as they are stored; each layer within casts them
        # by its own policy.
        kwargs.setdefault("dtype", layer.variable_dtype)
        super().__init__(layer, **kwargs)
        if find_gem_layers(layer):
            raise ValueError(
                "A layer can only be pruned once. Received: "
                f"layer='{layer.name}', which already contains a `GemLayer`. "
                "Wrap either its parts or the whole layer."
            )
        wrapped_variable.refuse_wrapped(layer)
        refuse_quantized(layer)
        self.autocast = False
        self.supports_masking = layer.supports_masking
        check_filters(filters)
        self.filters = filters
        self.mask = registry.get(mask, MASKS, "mask")
        self.score_initializer = initializers.get(
            keras.initializers.RandomUniform(0.0, 1.0)
            if score_initializer is None
            else score_initializer,
            "score_initializer",
        )
        if seed is None:
            seed = random.randrange(2**31)
        self.seed = check_integer(seed, "seed")
        self.phase = check_choice(phase, "phase", PHASES)
        self.candidates = candidates
        if candidates is not None:
            if not isinstance(candidates, list | tuple):
                self.candidates = check_list(
                    candidates, "candidates", "places of weights"
                )
            for place in candidates:
                check_integer(place, "candidates")
        self.prunable = []
        # How many weights `tf_gems.strip` took from a ticket that was mined.
        self.lost = 0
        self.adds_losses = False  # whether the wrapped layer has its own
        self._penalty = None
        self._loaded_phase = None
        self._thread = None
        if layer.built:
            self.build()
            freeze_zeros(self.prunable)

    def __call__(self, *args, **kwargs):
        if not self.built and not self.layer.built:
            # Called on symbols, a layer builds itself from all its inputs.
            symbols = keras.tree.map_structure(to_symbol, (args, kwargs))
            self.layer(*symbols[0], **symbols[1])
        if not self.built:
            self.build()
        return super().__call__(*args, **kwargs)

    def build(self, input_shape=None):
        super().build(input_shape)
        if self.candidates is None:
            trainable = {id(v) for v in self.layer.trainable_weights}
            self.candidates = [
                place
                for place, weight in enumerate(self.layer.weights)
                if id(weight) in trainable
            ]
        count = len(self.layer.weights)
        if any(place >= count for place in self.candidates):
            raise ValueError(
                "`candidates` must be indices into the weights of a layer. "
                f"Received: candidates={self.candidates!r:.100}, where "
                f"'{self.layer.name}' has {count} weights, starting at 0."
            )
        candidates = [self.layer.weights[place] for place in self.candidates]
        self.report = PruningReport(self.layer, self.filters, candidates)
        # How many weights of the whole model mining may leave; 0: any number.
        self.target = add_state(self, "target")
        # How many weights of this layer a top-k mask keeps; 0: by its sparsity.
        self.places = add_state(self, "places")
        weights = self.report.prunable
        paths = unique_paths(weights)
        projected = isinstance(self.mask, RoundMask)
        drawn_by = self._initializers_of_scores(weights)
        for path, weight, initializer in zip(
            paths, weights, drawn_by, strict=True
        ):
            self.prunable.append(
                PrunableWeight.add_to(
                    self, path, weight, initializer, projected
                )
            )
        from tf_gems.gem_miner import ScorePenalty  # which imports this module

        self.penalty = ScorePenalty(self, self.prunable)
        self.take_over()

    def set_mask(self, mask, score_initializer):
        """Changes the mask and the initializer of the scores.

        The scores change at the next `reset_mining`.

        Args:
            mask: As for the constructor.
            score_initializer: Keras initializer.
        """
        self.mask = registry.get(mask, MASKS, "mask")
        self.score_initializer = initializers.get(
            score_initializer, "score_initializer"
        )
        for prunable in self.prunable:
            prunable.project(isinstance(self.mask, RoundMask))

    def _initializers_of_scores(self, weights):
        return initializers.for_weights(
            self.score_initializer, self.layer, weights, self.seed
        )

    def reset_mining(self):
        """Reinitializes the scores, and makes all nonzero weights alive."""
        weights = [prunable.weight for prunable in self.prunable]
        drawn_by = self._initializers_of_scores(weights)
        for prunable, initializer in zip(self.prunable, drawn_by, strict=True):
            shape = tuple(prunable.score.shape)
            prunable.alive.assign(nonzero(prunable.weight))
            prunable.score.assign(initializer(shape, dtype="float32"))
        for counter in (self.target, self.places):
            counter.assign(0)
        self.penalty.reset()

    def saturate_scores(self):
        """Sets the scores of all alive weights to 1."""
        if isinstance(self.mask, RoundMask):
            for prunable in self.prunable:
                prunable.raise_score()

    @property
    def size(self):
        """Number of prunable weights."""
        return sum(math.prod(w.weight.shape) for w in self.prunable)

    def count_alive(self):
        """Returns the number of alive weights."""
        return sum(weight.alive.count() for weight in self.prunable)

    def own_variables(self):
        """Returns the variables that pruning adds to the network."""
        pairs = [(w.score, w.alive.packed) for w in self.prunable]
        added = [*self.penalty.variables, self.target, self.places]
        return [*added, *itertools.chain(*pairs)]

    def set_phase(self, phase):
        """Sets what trains: scores (mining) or weights (fine-tuning).

        Keras ignores a change of `trainable` until the next `compile`, so
        compile the model again afterwards.
        `SparseModel.start_finetuning` asks for it.

        Args:
            phase: `"mining"` or `"finetuning"`.
        """
        changed = phase != self.phase
        self.phase = check_choice(phase, "phase", PHASES)
        self._update_trainable()
        if changed:
            forget_steps(self)

    def _update_trainable(self):
        mining = self.phase == "mining"
        for prunable in self.prunable:
            prunable.set_trainable(self.trainable and mining)
        if keras.backend.backend() == "torch":
            for variable in self.layer.weights:
                variable.trainable = _keras.own_trainable(variable)

    @property
    def trains_weights(self):
        """Whether weights may train now, and not scores."""
        return self.phase == "finetuning" and self.trainable

    def take_over(self):
        """Makes the wrapped layer follow the phase of this one."""
        self.taken = True
        candidates = {id(v) for v in self.report.trainable}
        flags = {id(w.weight): w.alive for w in self.prunable}
        for variable in self.layer.weights:
            wrapped_variable.wrap(
                variable,
                self,
                id(variable) in candidates,
                flags.get(id(variable)),
            )
        for part in _keras.flatten_layers(self.layer):
            set_guards(part, self)
        self._update_trainable()

    def give_back(self):
        """Makes the wrapped layer a plain one again, as it was before."""
        self.taken = False
        for variable in self.layer.weights:
            wrapped_variable.unwrap(variable)
        for part in _keras.flatten_layers(self.layer):
            remove_guards(part)

    def prune_for_good(self):
        """Sets the pruned weights to zero and fixes the masks.

        The outputs of the network do not change. Mining cannot continue,
        because the initial values of the pruned weights are lost.
        """
        masks = self.current_masks()
        if self.phase == "mining":
            ticket = sum(map(np.count_nonzero, self.ticket_masks()))
            self.lost = int(ticket - sum(map(np.count_nonzero, masks)))
        for prunable, mask in zip(self.prunable, masks, strict=True):
            prunable.alive.assign(mask)
            prunable.score.assign(mask.astype("float32"))
            prunable.weight.assign(masked(prunable.weight, mask))
        self.set_phase("finetuning")

    def zero_pruned(self):
        """Sets weights that are pruned to zero, while fine-tuning.

        Masks hold whatever is stored. An optimizer that averages weights
        (`use_ema=True`) stores averages with what they were before.
        """
        if self.phase != "finetuning":
            return
        masks = self.current_masks()
        for prunable, mask in zip(self.prunable, masks, strict=True):
            value = masked(prunable.weight, mask)
            if not ops.all(ops.equal(value, prunable.weight)):
                prunable.weight.assign(value)

    @property
    def trainable(self):
        return super().trainable

    @trainable.setter
    def trainable(self, value):
        keras.layers.Layer.trainable.fset(self, value)
        if self.built:
            # Keras has set everything within; only one phase may train.
            self._update_trainable()

    @property
    def metrics(self):
        # As in `keras.Model`, metrics that an inner model was compiled with
        # do not count.
        parts = [self, *_keras.flatten_layers(self.layer)]
        parts = [p for p in parts if not isinstance(p, keras.Model)]
        return [metric for part in parts for metric in _keras.own_metrics(part)]

    def masks(self):
        """Returns the masks of this phase, one float32 tensor for each weight.

        Mining: `m(p) * q`, with a straight-through gradient to the scores.
        Fine-tuning: `q`.
        """
        alive = [w.alive.read() for w in self.prunable]
        if self.phase == "finetuning":
            return [ops.cast(a, "float32") for a in alive]
        scores = [ops.copy(w.score) for w in self.prunable]
        masks = self.mask(scores, alive, self.places)
        # Not `m * q`: its gradient would keep four bytes a flag.
        pairs = zip(alive, masks, strict=True)
        return [ops.where(q, m, 0.0) for q, m in pairs]

    def current_masks(self):
        """Returns the masks of this phase as NumPy bool arrays."""
        return [ops.convert_to_numpy(mask) > 0 for mask in self.masks()]

    def ticket_masks(self):
        """Returns the masks of the ticket as NumPy bool arrays.

        With `"round"`, these are all alive weights; with `"top_k"`, the
        weights with the largest scores.
        """
        if isinstance(self.mask, TopKMask):
            return self.current_masks()
        return [np.asarray(w.alive) for w in self.prunable]

    def count_kept(self):
        """Returns the number of kept entries of each weight."""
        return [int(ops.count_nonzero(mask)) for mask in self.masks()]

    def score_penalty(self):
        """Returns the sum of squared scores, a float32 scalar tensor."""
        return sum(ops.sum(ops.square(w.score)) for w in self.prunable)

    def call(self, *args, training=None, **kwargs):
        variables = [*self.layer.variables, *self.layer.metrics_variables]
        variables += self.variables_of_call()
        values = {id(v): v.value for v in variables}
        for prunable in self.prunable:
            if id(prunable.weight) not in values:
                raise ValueError(
                    "The weights of a wrapped layer must not be replaced. "
                    f"Received: '{self.layer.name}', which no longer has "
                    f"'{prunable.path}'. Change its weights before it is "
                    "wrapped, or after `tf_gems.strip`."
                )
        masks = self.masks()
        if training and self.phase == "mining":
            masks = self.penalty.pull(masks)
        for prunable, mask in zip(self.prunable, masks, strict=True):
            weight = values[id(prunable.weight)]
            values[id(prunable.weight)] = weight * ops.cast(mask, weight.dtype)
        self.change_weights(values)

        before = [(v, values[id(v)]) for v in variables]
        with (
            inlined_functions(self.layer),
            RecordingScope(before, collect_losses=True) as scope,
        ):
            outputs = self.call_layer(args, kwargs, training)
            losses = list(scope.losses)
            # From here on they are this layer's own: counted once.
            _keras.clear_losses(self.layer)
        self.adds_losses = bool(losses)

        fixed = self.prunable if self.phase == "mining" else []
        fixed = {id(prunable.weight) for prunable in fixed}
        for variable, value in scope.updates.values():
            # Some layers normalize their own kernel, which is masked here.
            if id(variable) not in fixed:
                variable.assign(value)
        # The penalty counts once, however often the layer is called.
        counted = any(loss is self._penalty for loss in self.losses)
        if training and self.phase == "mining" and not counted:
            with after((args, kwargs)):
                self._penalty = penalty = self.penalty(masks)
            losses.append(penalty)
        # Replicas of `tf.distribute` are threads that switch at every
        # assignment. Losses are added after the last one; those of other
        # threads are dropped.
        if self._thread != threading.get_ident():
            _keras.clear_losses(self)
        self._thread = threading.get_ident()
        # Weight regularizers are not among these: Keras collects them from
        # the variables themselves.
        dtype = keras.backend.result_type(keras.config.floatx(), "float32")
        for loss in losses:  # Keras adds them to the loss of the data
            self.add_loss(ops.cast(loss, dtype))
        return outputs

    def variables_of_call(self):
        """Returns variables of this layer that `call_layer` reads."""
        return []

    def change_weights(self, values):
        """Changes masked weights in a call, a dict from ids to tensors."""

    def call_layer(self, args, kwargs, training):
        """Calls the wrapped layer, whose variables have the changed values."""
        return self.layer(*args, **kwargs)

    def compute_output_shape(self, *args, **kwargs):
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        # Traces `call`: the shape alone would not tell the dtype.
        return keras.Operation.compute_output_spec(self, *args, **kwargs)

    def compute_mask(self, inputs, previous_mask=None):
        return self.layer.compute_mask(inputs, previous_mask)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["phase"] = np.array(PHASES.index(self.phase))

    def load_own_variables(self, store):
        values = {name: store[name] for name in store.keys()}  # noqa: SIM118
        if values:  # Keras asks again, with nothing, after an error
            number = values.pop("phase", PHASES.index(self.phase))
            self._loaded_phase = PHASES[int(np.array(number))]
        phase = self._loaded_phase
        if phase not in (None, self.phase):
            raise ValueError(
                "Weights must be loaded in the phase in which they were "
                "saved, because another phase has other masks. Received: "
                f"weights of phase '{phase}' for '{self.name}', which is in "
                f"phase '{self.phase}'. Load them into a model created with "
                f"`phase='{phase}'`, or pass a `Ticket` to "
                "`start_finetuning`."
            )
        super().load_own_variables(values)

    def get_build_config(self):
        # The config of the wrapped layer carries what builds it.
        return None

    def get_config(self):
        filters = self.filters
        if callable(filters):
            filters = keras.saving.serialize_keras_object(filters)
        return {
            **super().get_config(),
            "filters": filters,
            "mask": keras.saving.serialize_keras_object(self.mask),
            "score_initializer": keras.initializers.serialize(
                self.score_initializer
            ),
            "seed": self.seed,
            "phase": self.phase,
            "candidates": self.candidates,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        filters = config.get("filters")
        if isinstance(filters, dict):
            config["filters"] = keras.saving.deserialize_keras_object(
                filters, custom_objects
            )
        return super().from_config(config, custom_objects)


def masked(weight, mask):
    """Returns a weight with exact zeros where its bool mask is zero."""
    value = ops.convert_to_tensor(weight)
    return ops.where(mask, value, ops.zeros_like(value))


def find_gem_layers(model):
    """Returns every `GemLayer` of a model, its own parts included."""
    layers = _keras.flatten_layers(model)
    return [layer for layer in layers if isinstance(layer, GemLayer)]


def built_gem_layers(model, name):
    """Returns every `GemLayer` of a model, or refuses the model.

    `name` is that of the callback that is to prune it.
    """
    gems = find_gem_layers(model)
    if not gems:
        raise ValueError(
            f"`{name}` requires weights to prune. Received: model "
            f"'{model.name}' of type {type(model).__name__}, which contains "
            "no `GemLayer`. Wrap it: `tf_gems.SparseModel(model)`."
        )
    if not all(gem.built for gem in gems):
        raise ValueError(
            "A model must be built before it is pruned. Received: model "
            f"'{model.name}', whose weights are created by its first call. "
            "Call it once on data before `fit`."
        )
    return gems
