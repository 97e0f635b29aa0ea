"""Variables of a wrapped layer, which follow the phase of pruning."""

import weakref

import keras
from keras import ops

from tf_gems import _keras
from tf_gems._keras import in_stateless_scope
from tf_gems.layers.pruning_scope import active_scope
from tf_gems.layers.pruning_scope import suspended_scope

_CLASSES = {}


class WrappedVariable:
    """Mixin for the variables of a layer that a `GemLayer` wraps.

    While mining, no weight of the network trains, however the user sets
    `trainable` on a layer, a model or a variable. What was set is remembered
    and counts while fine-tuning, and after `tf_gems.strip`.

    A prunable weight reads masked within a `PruningScope`. While fine-tuning
    its constraint ends with its mask: optimizers apply constraints after every
    update, so pruned weights are zero in the variable itself, whatever an
    optimizer or another constraint writes.

    A variable gets the mixin by a change of its class and loses it in the same
    way: it stays the object that the layer, the optimizer and the user hold.
    """

    @property
    def trainable(self):
        gem = self._gem_layer()
        if gem is None:
            return self._trainable
        return self._trainable and self._is_candidate and gem.trains_weights

    @trainable.setter
    def trainable(self, value):
        self._trainable = bool(value)
        if keras.backend.backend() == "torch" and self._value is not None:
            self._value.requires_grad = self.trainable

    @property
    def value(self):
        scope = active_scope()
        if scope is not None and not in_stateless_scope():
            value = scope.value_of(self)
            if value is not None:
                return self._maybe_autocast(value)
        return super().value

    @property
    def handle(self):
        return self._value.handle  # of the variable, though it reads masked

    def assign(self, value):
        scope = active_scope()
        if scope is not None and not in_stateless_scope():
            tensor = ops.convert_to_tensor(value, dtype=self._dtype)
            if scope.assign(self, tensor):
                return tensor
        return super().assign(value)

    @property
    def constraint(self):
        gem = self._gem_layer()
        # On JAX flags are not to be read here: `SparseModel` masks its steps.
        if (
            self._alive is None
            or gem is None
            or gem.phase == "mining"
            or keras.backend.backend() == "jax"
        ):
            return self._constraint
        return _KeepZeros(self._constraint, self._alive)

    @constraint.setter
    def constraint(self, value):
        _, kind = type(self).__bases__
        kind.constraint.fset(self, value)


class ScoreVariable:
    """Mixin for a score, which stands in its weight's place in a step.

    Within a `PruningScope` a user's step finds the score in `weights` and
    `trainable_variables`, and treats it as the weight. For example, it averages
    it into a target network, or adds its norm to the loss. So the score reads
    as the masked weight there, with the gradient to the score.
    """

    @property
    def value(self):
        scope = active_scope()
        if scope is not None and not in_stateless_scope():
            value = scope.value_of(self._weight)
            if value is not None:
                return value
        return super().value

    @property
    def handle(self):
        return self._value.handle

    def assign(self, value):
        scope = active_scope()
        if scope is not None and scope.value_of(self._weight) is not None:
            raise ValueError(
                "While a model is mined, its weights are fixed and only "
                "scores train. Received: a training method that assigns to "
                f"'{self._weight.path}'. If this weight follows another part "
                "of the model, set `trainable=False` on its layers before "
                "the model is wrapped: such layers are not pruned."
            )
        return super().assign(value)

    def assign_add(self, value):
        with suspended_scope():  # an update of the score itself
            return super().assign_add(value)

    def assign_sub(self, value):
        with suspended_scope():
            return super().assign_sub(value)


def wrap_score(score, weight):
    """Makes a variable the score of a weight."""
    _change_class(score, ScoreVariable)
    score._weight = weight


def _change_class(variable, mixin):
    kind = type(variable)
    if not issubclass(kind, mixin):
        if (mixin, kind) not in _CLASSES:
            _CLASSES[mixin, kind] = type(kind.__name__, (mixin, kind), {})
        variable.__class__ = _CLASSES[mixin, kind]


class _KeepZeros:
    """The user's own constraint, and then the mask."""

    def __init__(self, constraint, alive):
        self.constraint = constraint
        self.alive = alive

    def __call__(self, value):
        value = ops.convert_to_tensor(value)
        if self.constraint is not None:
            value = self.constraint(value)
        return ops.where(self.alive.read(), value, ops.zeros_like(value))


def wrap(variable, gem, is_candidate, alive=None):
    """Puts a variable under the phase of a `GemLayer`.

    Candidates train while fine-tuning; others were not trainable when the layer
    was wrapped, and stay so. A prunable weight has flags `alive`.
    """
    _change_class(variable, WrappedVariable)
    variable._gem_layer = weakref.ref(gem)
    variable._is_candidate = is_candidate
    variable._alive = alive


def unwrap(variable):
    """Makes a variable a plain one again, trainable as the user has set it."""
    if isinstance(variable, WrappedVariable):
        _, variable.__class__ = type(variable).__bases__
        del variable._gem_layer, variable._is_candidate, variable._alive
        variable.trainable = _keras.own_trainable(variable)


def mined_weight(layer):
    """Returns a prunable weight of a layer that is being mined, or `None`."""
    for variable in layer.weights:
        if (
            isinstance(variable, WrappedVariable)
            and variable._alive is not None
        ):
            gem = variable._gem_layer()
            if gem is not None and gem.phase == "mining":
                return variable
    return None


def refuse_wrapped(layer):
    """Raises an error if another `GemLayer` prunes a weight of a layer."""
    for variable in layer.weights:
        if isinstance(variable, WrappedVariable):
            other = variable._gem_layer()
            if other is not None:
                raise ValueError(
                    "A layer can only be pruned by one `GemLayer` or "
                    f"`SparseModel` at a time. Received: '{layer.name}' with "
                    f"weight '{variable.path}', which is already pruned. Call "
                    "`tf_gems.strip` or `tf_gems.unwrap` on that model "
                    "first."
                )
