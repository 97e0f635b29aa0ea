"""A `GemLayer` that computes with fake-quantized weights and activations."""

import keras
import numpy as np
from keras import ops

from tf_gems import _keras
from tf_gems.compaction.graph import function_of
from tf_gems.layers.gem_layer import GemLayer
from tf_gems.quantization import fake_quantization as fq
from tf_gems.quantization.graph import Graph

# A range that is computed with, and not used.
_ANY = (-1.0, 1.0)
_SMALLEST_OUTPUT = 1e-30


class QuantizedLayer(GemLayer):
    """Computes `f(fq(w * q); fq(x))`, with all activations rounded as well.

    The mask `q` comes first, and zeros are among the values of `fq`: what is
    pruned is exactly zero in the quantized kernel.

    Ranges of activations are moving averages of the extremes of batches, taken
    while training (Jacob et al., 2018, section 3.1):

        range <- momentum * range + (1 - momentum) * [min(x), max(x)]

    A range is empty until it was calibrated, or taken from a first batch. Its
    tensor is not rounded.

    Args:
        layer: Built Keras model.
        inputs: Structure of symbolic tensors that it takes.
        momentum: Float in [0, 1).
        **kwargs: See `GemLayer`.
    """

    def __init__(self, layer, inputs, momentum, **kwargs):
        self.momentum = momentum
        self._symbols = inputs
        self._observed = None
        super().__init__(layer, **kwargs)

    def build(self, input_shape=None):
        self._graphs = {
            training: Graph(self.layer, self._symbols, training)
            for training in (False, True)
        }
        names = self._graphs[False].names
        if names != self._graphs[True].names:
            raise ValueError(
                "A quantized model must use the same layers in training and "
                f"in inference. Received: '{self.layer.name}', whose `call` "
                "depends on `training` in another way than through its "
                "layers. Use layers that depend on `training`, such as "
                "`Dropout`."
            )
        super().build(input_shape)
        self.ranges = [
            self.add_weight(
                name=f"range_{place}",
                shape=(2,),
                dtype="float32",
                initializer="zeros",
                trainable=False,
                autocast=False,
                aggregation="mean",
            )
            for place in range(len(names))
        ]

    def own_variables(self):
        return [*super().own_variables(), *self.ranges]

    def variables_of_call(self):
        return self.ranges

    def change_weights(self, values):
        for kernel, axes in self.kernels:
            values[id(kernel)] = fq.quantize_kernel(values[id(kernel)], axes)

    @property
    def kernels(self):
        """List of `(variable, axes)`, see `writer.Writer`."""
        return self._graphs[False].kernels

    @property
    def range_names(self):
        """List of strings, the tensor of each range."""
        return self._graphs[False].names

    def call_layer(self, args, kwargs, training):
        graph = self._graphs[bool(training)]
        round_ = self._round_and_learn if training else self._round
        if self._observed is not None:
            round_ = self._observe
        return graph.run(flat_inputs(self.layer, args, kwargs), round_)

    def _round(self, x, rounding):
        if rounding.range is not None:
            return fq.quantize_activation(
                x, *rounding.range, rounding.ties_away
            )
        limits = ops.convert_to_tensor(self.ranges[rounding.place])
        empty = _is_empty(limits)
        limits = ops.where(empty, ops.convert_to_tensor(_ANY), limits)
        rounded = fq.quantize_activation(
            x, limits[0], limits[1], rounding.ties_away
        )
        return ops.where(empty, x, rounded)

    def _round_and_learn(self, x, rounding):
        if rounding.learns:
            variable = self.ranges[rounding.place]
            found = ops.stack(fq.range_of(x))
            before = ops.convert_to_tensor(variable)
            moved = before + (1 - self.momentum) * (found - before)
            variable.assign(ops.where(_is_empty(before), found, moved))
        return self._round(x, rounding)

    def _observe(self, x, rounding):
        if rounding.learns:
            low, high = map(float, fq.range_of(x))
            before = self._observed.get(rounding.place, (low, high))
            self._observed[rounding.place] = (  # NaN if one of both is
                np.minimum(low, before[0]),
                np.maximum(high, before[1]),
            )
        return x

    def calibrate(self, batches):
        """Sets the ranges to the extremes of all batches.

        Args:
            batches: Iterable of inputs.
        """
        self._observed = {}
        try:
            for inputs in batches:
                self(inputs, training=False)
        finally:
            found, self._observed = self._observed, None
        if not np.isfinite(list(found.values())).all():
            raise ValueError("activations are NaN or infinite")
        for place, limits in found.items():
            self.ranges[place].assign(limits)

    def difference(self, inputs):
        """Returns how far operators without rounding are from the layer.

        Args:
            inputs: Batch of inputs.

        Returns:
            Float, the largest difference of the outputs, as a fraction of the
            largest output; NaN if an output is NaN.
        """
        flat = flat_inputs(self.layer, (inputs,), {})
        with fq.exact_constants():
            found = self._graphs[False].run(flat, lambda x, rounding: x)
        expected = self.layer(inputs, training=False)
        worst = 0.0
        for one, other in zip(
            keras.tree.flatten(expected), keras.tree.flatten(found), strict=True
        ):
            one, other = map(ops.convert_to_numpy, (one, other))
            if one.shape != other.shape:
                return np.inf
            largest = max(np.abs(one).max(initial=0.0), _SMALLEST_OUTPUT)
            share = np.abs(one - other).max(initial=0.0) / largest
            worst = np.maximum(worst, share)  # NaN if one of both is
        return float(worst)

    def limits(self):
        """Returns the ranges as a list of `(low, high)`, floats.

        Empty ranges are `(0.0, 0.0)`.
        """
        return [tuple(ops.convert_to_numpy(r).tolist()) for r in self.ranges]

    def run_exported(self, inputs, limits):
        """Computes with kernels as they are stored and ranges as constants.

        Args:
            inputs: Structure of tensors.
            limits: List of `(low, high)`, see `limits`.
        """

        def round_(x, rounding):
            low, high = rounding.range or limits[rounding.place]
            return fq.quantize_activation(x, low, high)

        flat = flat_inputs(self.layer, (inputs,), {})
        return self._graphs[False].run(flat, round_)


def _is_empty(limits):
    return limits[0] >= limits[1]


def flat_inputs(model, args, kwargs):
    """Returns the tensors of a call in the order of the model's inputs."""
    function = function_of(model)
    if isinstance(function, _keras.Functional):
        return _keras.standardize_inputs(function, args[0])
    flat = keras.tree.flatten((args, kwargs))
    return [x for x in flat if x is not None]  # such as `mask=None`
