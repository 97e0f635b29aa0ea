"""Initial values of kernels and scores."""

import math

import keras
import numpy as np
from keras import ops

from tf_gems.filter_policies import depthwise_kernels
from tf_gems.validation import check_choice
from tf_gems.validation import check_number
from tf_gems.validation import check_seed


@keras.saving.register_keras_serializable(package="tf_gems")
class SignedConstant(keras.initializers.Initializer):
    """Draws weights with one magnitude per layer and random signs.

    `w = +-gain / sqrt(fan_in)`. The default gain of `sqrt(2)` gives the
    variance of He initialization for ReLU networks. A subnetwork is described
    by its mask and one bit per weight.

    Args:
        gain: Positive float. Defaults to `sqrt(2)`.
        seed: Integer, or `None` for a seed drawn from Keras' global seed.

    Example:

    >>> kernel = SignedConstant(seed=0)((3, 3, 16, 32))
    >>> round(float(abs(kernel[0, 0, 0, 0])), 4)
    0.1179

    Reference: Ramanujan et al., 2020, "What's Hidden in a Randomly Weighted
    Neural Network?", section 4.1, and the configurations of "Rare Gems".
    """

    def __init__(self, gain=2.0**0.5, seed=None):
        self.gain = check_number(gain, "gain", above=0)
        self.seed = check_seed(seed)

    def __call__(self, shape, dtype=None):
        dtype = dtype or keras.config.floatx()
        fan_in = math.prod(shape[:-1]) if len(shape) > 1 else shape[0]
        uniform = keras.random.uniform(shape, seed=self.seed)
        magnitude = ops.full(shape, self.gain / math.sqrt(fan_in))
        return ops.cast(ops.where(uniform < 0.5, -magnitude, magnitude), dtype)

    def get_config(self):
        return {"gain": self.gain, "seed": self.seed}


def get(identifier, argument):
    """Returns an initializer, as `keras.initializers.get` does.

    Args:
        identifier: `"signed_constant"`, or what Keras takes.
        argument: Name of the user's argument, for messages.

    Raises:
        ValueError: If there is no such initializer; the message names the
            most similar one.
    """
    if isinstance(identifier, str) and identifier == "signed_constant":
        return SignedConstant()
    try:
        found = keras.initializers.get(identifier)
        if isinstance(found, keras.initializers.Initializer):
            return found
        raise TypeError("it cannot be drawn from again")
    except (KeyError, TypeError, ValueError):
        names = {name for name in vars(keras.initializers) if name.islower()}
        names -= {"deserialize", "get", "serialize"}
        names = {n for n in names if not n.startswith("_")}
        return check_choice(identifier, argument, names | {"signed_constant"})


def reseed(initializer, seed, index):
    """Returns the initializer with its own seed.

    Keras initializers with the same seed give equal values to weights of equal
    shape, so each weight needs a seed derived from that of the network.

    Args:
        initializer: A `keras.initializers.Initializer`.
        seed: Integer, the network's seed.
        index: Integer, the weight's place in the network.
    """
    config = initializer.get_config()
    if "seed" not in config:
        return initializer
    # 31 bits: the integer must be positive on every backend.
    [derived] = np.random.SeedSequence([seed, index]).generate_state(1)
    config["seed"] = int(derived >> 1)
    return type(initializer).from_config(config)


def for_weights(initializer, layer, weights, seed, first=0):
    """Yields an initializer for each weight of a layer, with its own seed.

    Args:
        initializer: A `keras.initializers.Initializer`.
        layer: Keras layer or model that holds the weights.
        weights: List of `keras.Variable`.
        seed: Integer, the network's seed.
        first: Integer, the place of the first weight, see `reseed`. Defaults
            to `0`.
    """
    depthwise = {id(kernel) for kernel in depthwise_kernels(layer)}
    for index, weight in enumerate(weights, first):
        own = reseed(initializer, seed, index)
        yield per_channel(own) if id(weight) in depthwise else own


def per_channel(initializer):
    """Returns the initializer with a fan-in of one channel.

    In a depthwise kernel `(..., channels, multiplier)`, every channel has its
    own kernel, which reads only that channel.
    """

    def draw(shape, dtype=None):
        channels = (*shape[:-2], 1, shape[-2] * shape[-1])
        return ops.reshape(initializer(channels, dtype=dtype), shape)

    return draw
