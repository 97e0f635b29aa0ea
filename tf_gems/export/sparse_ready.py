"""Rewrites a model so that XNNPACK can use its zeros."""

import collections

import keras

from tf_gems.compaction.comparing import largest_difference
from tf_gems.compaction.comparing import random_inputs
from tf_gems.compaction.copying import Names
from tf_gems.compaction.copying import copy_of
from tf_gems.compaction.copying import is_copied
from tf_gems.compaction.copying import is_rewritable
from tf_gems.compaction.graph import CallGraph
from tf_gems.compaction.graph import is_graph
from tf_gems.compaction.graph import rebuilt
from tf_gems.compaction.graph import tensors_of
from tf_gems.export.input_scaling import find_input_scaling
from tf_gems.export.readiness_report import readiness_report
from tf_gems.export.rewrite_report import RewriteReport
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.parity import half_tolerance

layers = keras.layers

# Layers that compute the same with and without two axes of size one.
_BY_CHANNEL = (
    layers.Activation,
    layers.BatchNormalization,
    layers.Dropout,
    layers.LeakyReLU,
    layers.ReLU,
    layers.Softmax,
)

# Largest difference of outputs that are called exact, as a fraction of the
# largest one: rounding, added up over the layers.
TOLERANCE = 1e-3

SHIFTED = (
    "pads by {pad} on every side instead of {before}, so that it reads its "
    "feature maps one pixel further to the left and to the top"
)
EVEN_ALREADY = (
    "pads by {pad} explicitly, as 'same' does for feature maps of odd size"
)


def make_sparse_ready(model, inputs=None):
    """Rewrites a model so that XNNPACK can use its zeros.

    XNNPACK computes sparse 1x1 convolutions faster only in graphs that meet
    its requirements, see `tf_gems.export.xnnpack`. Networks such as
    `keras.applications.MobileNet` and `MobileNetV2` violate some of them. This
    function returns a copy with the same weights that meets them:

    * Layers with stride 2 are padded equally on every side. If the padding was
      only on the right and at the bottom, this is *near-exact*: each such
      layer reads its feature maps one pixel further to the left and to the
      top, so the outputs differ. Fine-tune a trained network briefly and
      measure its accuracy. Rewrite first, then prune.
    * A 1x1 convolution of the global average becomes `Dense`, *exactly*. With
      dimensions of size one, XNNPACK's sparse kernels give wrong outputs in
      browsers, without an error.
    * An explicit padding by one replaces `"same"` for feature maps of odd
      size, *exactly*.
    * The layers of nested models, as in transfer learning, become layers of
      the model itself, *exactly*.
    * Scaling of the input (`Rescaling`, `Normalization`, `x / 127.5 - 1`)
      moves behind the first convolution, see `tf_gems.export.input_scaling`.
      This is *exact* if nothing is added or nothing is padded, and otherwise
      *near-exact*, at the borders.

    The report lists the layers that violate a requirement and cannot be
    rewritten, and the difference of the outputs of both models.

    Args:
        model: Built functional or Sequential Keras model, with or without
            zeros.
        inputs: Batch of inputs on which the outputs are compared. Defaults to
            `None`: two random inputs.

    Returns:
        `(ready, report)`: a new Keras model with the same inputs and outputs,
        and a `tf_gems.export.RewriteReport`. If no layer has to be changed,
        the model is a copy, except for the layers that the report lists as
        shared.

    Raises:
        RuntimeError: If Keras does not run on TensorFlow, or the outputs of
            both models differ after an exact rewrite.
        ValueError: If the model is not a functional or Sequential Keras
            model, or is wrapped in `SparseModel`.

    Example:

    ```python
    stock = keras.applications.MobileNet((96, 96, 3), weights=None, classes=10)
    ready, report = tf_gems.export.make_sparse_ready(stock)
    print(report)
    sparse = tf_gems.SparseModel(ready, filters="pointwise")
    ```

    Reference: Elsen et al., 2020, "Fast Sparse ConvNets".
    """
    _refuse_others(model)
    plan = _Plan(model)
    ready = plan.build()
    found = readiness_report(ready)
    inputs = random_inputs(model) if inputs is None else inputs
    report = RewriteReport(
        plan.changes,
        plan.left,
        found,
        plan.shared,
        largest_difference(model, ready, inputs),
    )
    if report.exact:
        _refuse_difference(model, report.difference)
    return ready, report


def _refuse_difference(model, difference):
    tolerance = max(TOLERANCE, half_tolerance(model))
    if not difference <= tolerance:
        raise RuntimeError(
            "The outputs of a rewritten model must equal those of the model, "
            f"up to {tolerance:g} of the largest output. Received: "
            f"'{model.name}', whose outputs differ by {difference:.2g}. Use "
            "the model without rewriting."
        )


def _refuse_others(model):
    if not is_graph(model):
        raise ValueError(
            "Only built functional and Sequential Keras models can be "
            "rewritten, because every layer must be known. Received: model "
            f"of type {type(model).__name__}. Build it from `keras.Input` and "
            "layers."
        )
    if find_gem_layers(model):
        raise ValueError(
            "A model must be rewritten before it is wrapped, or after it is "
            f"stripped. Received: '{model.name}', which contains a "
            "`GemLayer`. Use `make_sparse_ready(tf_gems.strip(model))`."
        )


class _Plan:
    """The plan of how each layer of a functional model is rewritten.

    Attributes:
        changes: List of dicts: `layer`, `change` and `exact`.
        left: List of dicts: `layer` and `reason`.
        shared: List of names.
    """

    def __init__(self, model):
        self.changes, self.left, self.shared = [], [], []
        self._model = model
        self._graph = graph = CallGraph(model)
        # What happens to a layer, by its identity.
        self._pads = {}  # how much to pad before it
        self._arguments = collections.defaultdict(dict)  # of its copy
        self._flat = set()  # it loses two axes
        self._dropped = set()  # it returns its input
        around = {part.name: None for c in graph.calls for part in c.within}
        for name in around:
            self._change(name, "is replaced by its layers", True)
        self._scaling, reason = find_input_scaling(graph)
        if self._scaling is not None:
            self._move_scaling()
        elif reason is not None:
            self._leave(model.inputs[0].name, reason)
        for layer, calls in graph.layers():
            if isinstance(layer, keras.Model):
                self._leave(layer.name, "is a nested model")
            elif _strided(layer):
                self._pad_evenly(layer, calls)
            elif isinstance(layer, layers.GlobalAveragePooling2D):
                self._flatten_head(layer, calls)
        self._report_wide_convolutions()

    def _change(self, name, change, exact):
        self.changes.append({"layer": name, "change": change, "exact": exact})

    def _leave(self, name, reason):
        self.left.append({"layer": name, "reason": reason})

    def _report_wide_convolutions(self):
        """Lists the convolutions around which nothing is computed sparsely."""
        wide = [
            layer
            for layer, _ in self._graph.layers()
            if isinstance(layer, layers.Conv2D) and layer.kernel_size != (1, 1)
        ]
        reported = {row["layer"] for row in self.left}
        for layer in wide:
            stem = layer is wide[0] and layer.kernel.shape[:3] == (3, 3, 3)
            if not stem and layer.name not in reported:
                size = "x".join(map(str, layer.kernel_size))
                self._leave(
                    layer.name,
                    f"is a {size} convolution: XNNPACK runs no sparse kernels "
                    "in a network with such a convolution after the first "
                    "one",
                )

    def _move_scaling(self):
        """Plans the input's scaling behind the first convolution."""
        scaling = self._scaling
        if scaling.norm is None:
            self._arguments[id(scaling.convolution)]["use_bias"] = True
        change = f"moves behind '{scaling.convolution.name}'"
        if not scaling.exact:
            change += ": at the borders, padding is no longer scaled"
        for operation in scaling.operations:
            if not isinstance(operation, layers.ZeroPadding2D):
                self._dropped.add(id(operation))
                self._change(operation.name, change, scaling.exact)

    def _pad_evenly(self, layer, calls):
        """Plans the padding of a layer of stride 2."""
        size = layer.kernel_size[0]
        pad = size // 2
        if layer.kernel_size == (1, 1):
            self._leave(layer.name, "is a 1x1 convolution with stride 2")
        elif len(set(layer.kernel_size)) > 1 or size % 2 == 0:
            self._leave(
                layer.name, "has a kernel that is not square with an odd size"
            )
        elif not is_rewritable(layer):
            self._leave(layer.name, "is not a standard layer of Keras")
        elif layer.data_format != "channels_last":
            self._leave(
                layer.name, "has channels that are not on the last axis"
            )
        elif layer.padding == "same":
            maps = {call.inputs[0].shape[1:3] for call in calls}
            odd = {n is not None and n % 2 == 1 for m in maps for n in m}
            if len(odd) > 1 or any(None in m for m in maps):
                named = " and ".join(map(str, sorted(maps, key=str)))
                self._leave(
                    layer.name,
                    f"reads feature maps of {named}, with both "
                    "odd and even sizes",
                )
                return
            exact = odd == {True}
            change = EVEN_ALREADY.format(pad=pad)
            if not exact:
                change = SHIFTED.format(pad=pad, before="by 'same'")
            self._pads[id(layer)] = pad
            self._arguments[id(layer)]["padding"] = "valid"
            self._change(layer.name, change, exact)
        else:
            self._pad_evenly_before(layer, calls, pad)

    def _pad_evenly_before(self, layer, calls, pad):
        makers = [self._graph.maker(call.inputs[0]) for call in calls]
        paddings = {id(c.operation): c.operation for c in makers if c}
        [padding, *others] = [*paddings.values(), None]
        even = ((pad, pad), (pad, pad))
        if not isinstance(padding, layers.ZeroPadding2D) or None in makers:
            self._leave(layer.name, "is not padded")
            return
        before = dict(self._graph.layers())[padding]
        outputs = [tensor for call in before for tensor in call.outputs]
        maps = {call.inputs[0].shape[1:3] for call in before}
        readers = self._graph.readers(*outputs)
        if others != [None]:
            self._leave(layer.name, "is padded by several layers")
        elif padding.padding == even:
            pass  # as it should be
        elif padding.padding != ((pad - 1, pad), (pad - 1, pad)):
            self._leave(
                padding.name, f"pads by {padding.padding}, not by {pad}"
            )
        elif self._graph.is_output(*outputs):
            self._leave(padding.name, "is an output")
        elif {id(reader.operation) for reader in readers} != {id(layer)}:
            self._leave(padding.name, "is read by several layers")
        elif any(n is None or n % 2 for m in maps for n in m):
            named = " and ".join(map(str, sorted(maps, key=str)))
            self._leave(
                padding.name,
                f"pads feature maps of {named}, whose size is not even",
            )
        else:
            self._arguments[id(padding)]["padding"] = even
            change = SHIFTED.format(pad=pad, before=f"by {padding.padding}")
            self._change(padding.name, change, False)

    def _flatten_head(self, layer, calls):
        """Plans to drop the axes of size one after a global average."""
        graph = self._graph
        if not layer.keepdims or layer.data_format != "channels_last":
            return
        found, ends, todo = [], [], list(calls)
        while todo:
            call = todo.pop()
            part = call.operation
            is_average = part is layer
            if not graph.is_called_once(call):
                self._leave(layer.name, f"'{part.name}' is called twice")
                return
            if isinstance(part, layers.Flatten | layers.Reshape) and (
                len(call.outputs[0].shape) == 2
            ):
                ends.append(part)
            elif not is_average and not _works_on_one_pixel(call):
                reason = "keeps axes of size one: "
                reason += f"'{part.name}' needs them"
                self._leave(layer.name, reason)
                return
            elif graph.is_output(*call.outputs):
                ends = []
                break
            else:
                found += [part]
                todo += graph.readers(*call.outputs)
        if not ends:
            self._leave(layer.name, "keeps axes of size one in the outputs")
            return
        self._flat |= {id(part) for part in found}
        self._dropped |= {id(part) for part in ends}
        self._change(layer.name, "does not keep axes of size one", True)
        for part in found:
            if isinstance(part, layers.Conv2D):
                self._change(
                    part.name, "is replaced by `Dense` with its weights", True
                )
        for part in ends:
            self._change(part.name, "is left out", True)

    def build(self):
        """Returns the new model, with the weights of the old one."""
        calls = self._graph.calls
        shared = {
            id(call.operation): call.operation
            for call in calls
            if id(call.operation) not in self._dropped
            and not is_copied(call.operation)
        }
        self.shared = [operation.name for operation in shared.values()]
        names = Names(calls, shared.values())
        copies, added = {}, {}

        def call(old, args, kwargs, within):
            key = id(old)
            if key in self._dropped:
                return tensors_of((args, kwargs))[0]
            if key not in copies:
                new = old if key in shared else self._copy(old)
                names.give(new, within)
                copies[key] = old, new
            new = copies[key][1]
            if key in self._pads:
                if key not in added:  # a layer may be called twice
                    added[key] = layers.ZeroPadding2D(
                        self._pads[key],
                        data_format="channels_last",
                        dtype=old.dtype_policy,
                        name=f"{new.name}_pad",
                    )
                args = (added[key](args[0]), *args[1:])
            outputs = new(*args, **kwargs)
            if self._scales(old):
                scale = layers.Rescaling(
                    self._scaling.common, name=f"{new.name}_scale"
                )
                outputs = scale(outputs)
            return outputs

        ready = rebuilt(self._model, call)
        for old, new in copies.values():
            if self._scales(old):
                self._scaling.carry(new)
            elif new is not old:
                _carry_weights(old, new)
        if self._scaling is not None and self._scaling.norm is not None:
            _, norm = copies[id(self._scaling.norm)]
            norm.moving_mean.assign(norm.moving_mean - self._scaling.bias)
        return ready

    def _copy(self, old):
        """Returns a new layer in the place of an old one."""
        if id(old) in self._flat:
            return _without_pixels(old)
        return copy_of(old, **self._arguments[id(old)])

    def _scales(self, layer):
        """Whether the input's scaling moves behind a layer."""
        return self._scaling is not None and layer is self._scaling.convolution


def _carry_weights(old, new):
    """Gives a new layer the weights of another; operations have none."""
    if not isinstance(old, keras.Layer):
        return
    for a, b in zip(old.weights, new.weights, strict=True):
        # A 1x1 kernel may lose its two axes of size one.
        b.assign(keras.ops.reshape(a, b.shape))


def _strided(layer):
    kinds = layers.Conv2D | layers.DepthwiseConv2D
    return isinstance(layer, kinds) and tuple(layer.strides) == (2, 2)


def _works_on_one_pixel(call):
    """Whether an operation can do without two axes of size one."""
    layer = call.operation
    if type(layer) not in (*_BY_CHANNEL, layers.Conv2D):
        return False
    if len(call.inputs) != 1 or not is_rewritable(layer):
        return False
    if isinstance(layer, layers.Conv2D):
        return (
            layer.kernel_size == (1, 1)
            and layer.groups == 1
            and layer.data_format == "channels_last"
            and layer.kernel_constraint is None
        )
    if isinstance(layer, layers.BatchNormalization | layers.Softmax):
        return layer.axis in (-1, 3)
    if isinstance(layer, layers.Dropout):
        return layer.noise_shape is None
    return True


def _without_pixels(layer):
    """Returns a copy of a layer for inputs of two axes fewer."""
    if isinstance(layer, layers.GlobalAveragePooling2D):
        return copy_of(layer, keepdims=False)
    config = layer.get_config()
    if isinstance(layer, layers.Conv2D):
        names = (
            "name trainable dtype activation use_bias kernel_initializer "
            "bias_initializer kernel_regularizer bias_regularizer "
            "activity_regularizer bias_constraint"
        )
        kept = {name: config[name] for name in names.split()}
        return layers.Dense.from_config({**kept, "units": config["filters"]})
    return copy_of(layer, axis=-1) if "axis" in config else copy_of(layer)
