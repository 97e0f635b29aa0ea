"""Variables of a wrapped layer, which the phase of pruning governs."""

import weakref

import keras

_CLASSES = {}


class WrappedVariable:
    """Mixin for the variables of a layer that a `GemLayer` wraps.

    While mining, no weight of the network trains, however the user sets
    `trainable` on a layer, a model or a variable. What was set is remembered
    and counts while fine-tuning, and after `tf_gems.strip`.

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


def wrap(variable, gem, is_candidate):
    """Puts a variable under the phase of a `GemLayer`.

    Args:
        variable: `keras.Variable`.
        gem: `GemLayer`.
        is_candidate: Whether it trains while fine-tuning; others were frozen
            when the layer was wrapped, and rest.
    """
    kind = type(variable)
    if not issubclass(kind, WrappedVariable):
        if kind not in _CLASSES:
            _CLASSES[kind] = type(kind.__name__, (WrappedVariable, kind), {})
        variable.__class__ = _CLASSES[kind]
    variable._gem_layer = weakref.ref(gem)
    variable._is_candidate = is_candidate


def unwrap(variable):
    """Makes a variable a plain one again, trainable as the user has set it."""
    if isinstance(variable, WrappedVariable):
        _, variable.__class__ = type(variable).__bases__
        del variable._gem_layer, variable._is_candidate
        variable.trainable = variable._trainable


def refuse_wrapped(layer):
    """Raises an error if another `GemLayer` prunes a weight of a layer."""
    for variable in layer.weights:
        if isinstance(variable, WrappedVariable):
            other = variable._gem_layer()
            if other is not None:
                raise ValueError(
                    "A layer is pruned by one `GemLayer` or `SparseModel` at a "
                    f"time. Received: '{layer.name}' with weight "
                    f"'{variable.path}', which is pruned already. Call "
                    "`tf_gems.strip` or `tf_gems.unwrap` on that model first."
                )
