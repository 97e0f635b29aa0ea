"""Masks weights where they are read, for steps that a user has written."""

import contextlib
import threading

import keras
from keras import ops

from tf_gems import _keras
from tf_gems.layers.calling import after
from tf_gems.layers.calling import inlined_functions
from tf_gems.layers.mask import straight_through

_ACTIVE = threading.local()
_LOCK = threading.Lock()
# For each `GemLayer`: the number of active scopes, and its scores' places.
_IN_PLACE = {}


def active_scope():
    """Returns the `PruningScope` of this thread, or `None`."""
    return getattr(_ACTIVE, "scope", None)


class PruningScope:
    """Lets a user's own step train scores, on the user's own model.

    Within the scope a prunable weight reads as `w * m(p) * q`, with the
    straight-through gradient to its score `p`, wherever it is read: in the
    model, in a part of it that the step calls directly, or by the step itself.
    While mining, the score stands in the weight's place in
    `trainable_variables` of the layer that owns the weight, so that the step
    trains what it calls its trainable variables. A value that a layer assigns
    to its own kernel lasts until the scope ends.

    The score penalty is added, once a step, to the gradients that the compiled
    optimizer receives. This is the same as a penalty in the loss, which the
    user's step computes itself.
    """

    def __init__(self, gem):
        self.gem = gem
        self.applied = False
        self._pulls = None
        self._slopes = None
        self._assigned = {}
        self._of_weight = {}
        self._trained = set()

    def __enter__(self):
        gem = self.gem
        self._stack = contextlib.ExitStack()
        self._stack.enter_context(inlined_functions(gem.layer))
        # Outside the user's tape, once: ranking is costly, and has no gradient.
        with suspended_scope():  # of a step that calls another one
            masks = [ops.stop_gradient(mask) for mask in gem.masks()]
        alive = [prunable.alive.read() for prunable in gem.prunable]
        self._masks = masks
        self._of_weight = {
            id(prunable.weight): (prunable, mask, flags)
            for prunable, mask, flags in zip(
                gem.prunable, masks, alive, strict=True
            )
        }
        if gem.phase == "mining":
            self._stack.enter_context(scores_for_weights(gem))
        self._stack.callback(setattr, _ACTIVE, "scope", active_scope())
        _ACTIVE.scope = self
        return self

    def __exit__(self, *error):
        return self._stack.__exit__(*error)

    def value_of(self, variable):
        """Returns the value to read, or `None` for the stored value."""
        if id(variable) in self._assigned:
            return self._assigned[id(variable)]
        if id(variable) not in self._of_weight:
            return None
        prunable, mask, alive = self._of_weight[id(variable)]
        if self.gem.phase == "mining":
            score = ops.convert_to_tensor(prunable.score._value)
            score = self.gem.mask.surrogate(score)
            mask = ops.where(alive, straight_through(score, mask), 0.0)
        stored = ops.convert_to_tensor(_keras.stored_value(variable))
        return stored * ops.cast(mask, stored.dtype)

    def assign(self, variable, value):
        """Keeps a value for a masked kernel; returns whether it did."""
        kept = self.gem.phase == "mining" and id(variable) in self._of_weight
        if kept:
            self._assigned[id(variable)] = value
        return kept

    def untrained(self):
        """Returns the prunable weights that the step gave no optimizer.

        Those that the user has frozen since are not among them.
        """
        return [
            prunable
            for prunable in self.gem.prunable
            if _keras.own_trainable(prunable.weight)
            and not {id(prunable.weight), id(prunable.score)} & self._trained
        ]

    def with_penalty(self, gradients, variables):
        """Adds the gradients of the score penalty, once in a step."""
        self._trained |= {id(variable) for variable in variables}
        gem, gradients = self.gem, list(gradients)
        if gem.phase != "mining":
            return gradients
        of_score = {id(w.score): i for i, w in enumerate(gem.prunable)}
        places = [
            (place, of_score[id(variable)])
            for place, variable in enumerate(variables)
            if id(variable) in of_score
        ]
        if not places:
            return gradients
        if all(gradients[place] is None for place, _ in places):
            raise ValueError(
                "Mining trains scores with the gradient of the loss. "
                f"Received: `train_step` of '{gem.layer.name}', whose loss "
                "does not depend on any prunable weight that the step reads. "
                "Compute the loss from outputs of the model, within the "
                "tape."
            )
        if self._slopes is None:
            self._pulls = gem.penalty.pulls(self._masks)
            with after(gradients):
                self._slopes = dict(enumerate(self._penalty_slopes()))
        given = {
            index: gradients[place]
            for place, index in places
            if gradients[place] is not None
        }
        pulled = gem.penalty.pull_gradients(given, self._pulls)
        for place, index in places:
            slope = self._slopes.pop(index, None)
            gradient = pulled.get(index)
            if gradient is None:
                gradients[place] = slope
            else:
                gradients[place] = (
                    gradient if slope is None else gradient + slope
                )
        self.applied = True
        return gradients

    def _penalty_slopes(self):
        import tensorflow as tf

        scores = [w.score.value for w in self.gem.prunable]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(scores)
            penalty = self.gem.penalty(self._masks)
            # Gradients of replicas are added up.
            penalty /= tf.distribute.get_strategy().num_replicas_in_sync
        return tape.gradient(
            penalty, scores, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )


@contextlib.contextmanager
def suspended_scope():
    """Suspends the scope, and yields it, if any: weights are read unmasked."""
    before = active_scope(), getattr(_ACTIVE, "suspended", None)
    _ACTIVE.scope, _ACTIVE.suspended = None, before[0] or before[1]
    try:
        yield _ACTIVE.suspended
    finally:
        _ACTIVE.scope, _ACTIVE.suspended = before


@contextlib.contextmanager
def scores_for_weights(gem):
    """Puts scores in the places of weights in `trainable_variables`."""
    with _LOCK:  # replicas of `tf.distribute` are threads
        count, places = _IN_PLACE.get(id(gem), (0, None))
        places = list(_put_scores(gem)) if count == 0 else places
        _IN_PLACE[id(gem)] = count + 1, places
    try:
        yield
    finally:
        with _LOCK:
            count, places = _IN_PLACE.pop(id(gem))
            if count > 1:
                _IN_PLACE[id(gem)] = count - 1, places
            else:
                for variables, place, weight in places:
                    variables[place] = weight


def _put_scores(gem):
    scores = {id(w.weight): w.score for w in gem.prunable}
    for part in _keras.flatten_layers(gem.layer):
        for variables in _keras.own_variable_lists(part):
            for place, weight in enumerate(variables):
                if id(weight) in scores:
                    variables[place] = scores[id(weight)]
                    yield variables, place, weight


def hook(optimizer):
    """Lets a Keras optimizer add the score penalty within a scope.

    A `LossScaleOptimizer` gets it where gradients are no longer scaled.
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:
        hook(inner)
    if "apply" in vars(optimizer):
        return

    def apply(grads, trainable_variables=None):
        with suspended_scope() as scope:
            if scope is not None and inner is None:
                if trainable_variables is None:
                    trainable_variables = _keras.optimizer_variables(optimizer)
                trainable_variables = list(trainable_variables)
                grads = scope.with_penalty(grads, trainable_variables)
            kind = type(optimizer)
            return kind.apply(optimizer, grads, trainable_variables)

    vars(optimizer)["apply"] = apply


def optimizers_of(model):
    """Returns the Keras optimizers that a model holds, by attribute."""
    return {
        name: value
        for name, value in vars(model).items()
        if isinstance(value, keras.optimizers.Optimizer)
    }
