"""Rewrites a model so that XNNPACK can make use of its zeros."""

import dataclasses

import keras

from tf_gems import _keras
from tf_gems.compaction.graph import is_graph
from tf_gems.export.flattening import carry_weights
from tf_gems.export.flattening import flat_copy
from tf_gems.export.input_scaling import find_input_scaling
from tf_gems.export.readiness_report import ReadinessReport
from tf_gems.export.readiness_report import readiness_report
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.tables import Report
from tf_gems.tables import Table

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

SHIFTED = (
    "pads by {pad} on every side instead of {before}: it samples its maps "
    "one pixel further left and above"
)
EVEN_ALREADY = "pads by {pad} explicitly, as 'same' does for maps of odd size"


@dataclasses.dataclass
class RewriteReport(Report):
    """The layers that were changed, and those that could not be.

    Args:
        changes: List of dicts, one for each layer that was changed: `layer`,
            its name; `change`, a sentence without its subject; `exact`,
            whether the outputs stay the same.
        left: List of dicts, one for each layer that breaks a rule and could
            not be changed: `layer` and `reason`.
        xnnpack: `tf_gems.export.ReadinessReport` of the new model.

    Example:

    ```python
    ready, report = tf_gems.export.make_sparse_ready(model)
    print(report)
    ```
    """

    changes: list
    left: list
    xnnpack: ReadinessReport

    @property
    def exact(self):
        """Whether the new model computes what the old one does."""
        return all(change["exact"] for change in self.changes)

    @property
    def eligible(self):
        """Whether every 1x1 convolution can run sparse now."""
        return self.xnnpack.eligible

    def to_dict(self):
        """Returns the report as plain, JSON-serializable values."""
        return {
            "changes": self.changes,
            "left": self.left,
            "xnnpack": self.xnnpack.to_dict(),
            "exact": self.exact,
            "eligible": self.eligible,
        }

    def _parts(self):
        rows = []
        for row in self.changes:
            outputs = "exact" if row["exact"] else "near-exact"
            rows.append([row["layer"], outputs, row["change"]])
        for row in self.left:
            rows.append([row["layer"], "not changed", row["reason"]])
        convolutions = self.xnnpack.layers
        able = sum(not row["reason"] for row in convolutions)
        parts = [
            Table(["layer", "outputs", "change"], rows),
            f"{len(self.changes)} layers changed, {len(self.left)} that could "
            "not be",
            f"{able} of {len(convolutions)} 1x1 convolutions can run sparse",
        ]
        if self.xnnpack.obstacle:
            parts.append(f"obstacle: {self.xnnpack.obstacle}")
        return parts


def make_sparse_ready(model):
    """Rewrites a model so that XNNPACK can make use of its zeros.

    XNNPACK computes sparse 1x1 convolutions faster only in graphs that follow
    its rules, see `tf_gems.export.xnnpack`. Networks such as
    `keras.applications.MobileNet` and `MobileNetV2` break some of them. This
    function returns a copy with the same weights that follows them:

    * Layers of stride 2 are padded equally on every side. If the padding was
      only on the right and at the bottom, this is *near-exact*: each such
      layer samples its maps one pixel further left and above, so the outputs
      differ. Fine-tune a trained network briefly and measure its accuracy.
      Rewrite first, then prune.
    * A 1x1 convolution of the global average becomes `Dense`, *exactly*: with
      the dimensions of size one, XNNPACK's sparse path fails in browsers,
      without an error.
    * An explicit padding by one replaces `"same"` for maps of odd size,
      *exactly*.
    * The layers of a model within the model, as in transfer learning, become
      layers of the whole, *exactly*.
    * Scaling of the input (`Rescaling`, `Normalization`, `x / 127.5 - 1`)
      moves behind the first convolution, see
      `tf_gems.export.input_scaling`: *exactly* if nothing is added or nothing
      is padded, else *near-exact*, at the borders.

    The report lists the layers that break a rule and cannot be rewritten.

    Args:
        model: Built functional or Sequential Keras model, with or without
            zeros.

    Returns:
        `(ready, report)`: a new Keras model of the same inputs and outputs,
        and a `tf_gems.export.RewriteReport`. If no layer needs a change, the
        model is a plain copy.

    Raises:
        RuntimeError: If Keras does not run on TensorFlow.
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
    flat, names = flat_copy(model)
    plan = _Plan(flat, names)
    ready = keras.models.clone_model(
        flat, clone_function=plan.clone, call_function=plan.call
    )
    plan.carry_weights()
    report = readiness_report(ready)
    return ready, RewriteReport(plan.changes, plan.left, report)


def _refuse_others(model):
    if not is_graph(model):
        raise ValueError(
            "Only built functional and Sequential Keras models can be "
            "rewritten, in which every layer is known. Received: model of "
            f"type {type(model).__name__}. Build it from `keras.Input` and "
            "layers."
        )
    if find_gem_layers(model):
        raise ValueError(
            "A model is rewritten before it is wrapped, or after it is "
            f"stripped. Received: '{model.name}', which contains a `GemLayer`. "
            "Use `make_sparse_ready(tf_gems.strip(model))`."
        )


class _Plan:
    """The plan of how each layer of a functional model is rewritten.

    Attributes:
        changes: List of dicts: `layer`, `change` and `exact`.
        left: List of dicts: `layer` and `reason`.
    """

    def __init__(self, model, names):
        self.changes, self.left = [], []
        for name in names:
            self._change(name, "is replaced by its layers", True)
        self._copies = {}  # by name: (layer, copy)
        self._added = {}  # new layers by name
        self._pads = {}  # names of layers before which to pad, and how much
        self._new_pads = {}  # names of padding layers, and their new padding
        self._flat = set()  # names of layers that lose two axes
        self._dropped = set()  # names of layers that return their input
        self._readers = {}
        within = {id(operation) for operation in model.operations}
        for layer in model.operations:
            for node in _keras.calls_of(layer):
                for tensor in node.input_tensors:
                    before = _keras.maker_of(tensor)
                    if id(before) in within:
                        self._readers.setdefault(before.name, []).append(layer)
        self._outputs = {
            _keras.maker_of(tensor).name for tensor in model.outputs
        }
        self._scaling, reason = find_input_scaling(model, self._readers)
        if self._scaling is not None:
            self._move_scaling()
        elif reason is not None:
            self._leave(_keras.maker_of(model.inputs[0]).name, reason)
        for layer in model.layers:
            if isinstance(layer, keras.Model):
                self._leave(layer.name, "is a model within the model")
            elif _strided(layer):
                self._pad_evenly(layer)
            elif isinstance(layer, layers.GlobalAveragePooling2D):
                self._flatten_head(layer)
        self._report_wide_convolutions(model)

    def _change(self, name, change, exact):
        self.changes.append({"layer": name, "change": change, "exact": exact})

    def _leave(self, name, reason):
        self.left.append({"layer": name, "reason": reason})

    def _report_wide_convolutions(self, model):
        """Lists the convolutions around which nothing is computed sparsely."""
        wide = [
            layer
            for layer in model.layers
            if isinstance(layer, layers.Conv2D) and layer.kernel_size != (1, 1)
        ]
        reported = {row["layer"] for row in self.left}
        for layer in wide:
            stem = layer is wide[0] and layer.kernel.shape[:3] == (3, 3, 3)
            if not stem and layer.name not in reported:
                size = "x".join(map(str, layer.kernel_size))
                self._leave(
                    layer.name,
                    f"is a {size} convolution: XNNPACK computes nothing "
                    "sparsely in a network with one behind its first",
                )

    def _move_scaling(self):
        """Plans the input's scaling behind the first convolution."""
        scaling = self._scaling
        change = f"moves behind '{scaling.convolution.name}'"
        if not scaling.exact:
            change += ": padding is no longer scaled, at the borders"
        for operation in scaling.operations:
            if not isinstance(operation, layers.ZeroPadding2D):
                self._dropped.add(operation.name)
                self._change(operation.name, change, scaling.exact)

    def _pad_evenly(self, layer):
        """Plans the padding of a layer of stride 2."""
        size = layer.kernel_size[0]
        pad = size // 2
        maps = tuple(layer.input.shape[1:3])
        if layer.kernel_size == (1, 1):
            self._leave(layer.name, "is a 1x1 convolution of stride 2")
        elif len(set(layer.kernel_size)) > 1 or size % 2 == 0:
            self._leave(layer.name, "has a kernel that is not odd and square")
        elif layer.padding == "same":
            odd = [length is not None and length % 2 for length in maps]
            if all(odd):
                change = EVEN_ALREADY.format(pad=pad)
            elif any(odd) or None in maps:
                self._leave(
                    layer.name, f"reads maps of {maps}, of uneven parity"
                )
                return
            else:
                change = SHIFTED.format(pad=pad, before="by 'same'")
            self._pads[layer.name] = pad
            self._change(layer.name, change, all(odd))
        else:
            self._pad_evenly_before(layer, pad)

    def _pad_evenly_before(self, layer, pad):
        padding = _keras.maker_of(layer.input)
        even = ((pad, pad), (pad, pad))
        if not isinstance(padding, layers.ZeroPadding2D):
            self._leave(layer.name, "is not padded")
        elif padding.padding == even:
            pass  # as it should be
        elif padding.padding != ((pad - 1, pad), (pad - 1, pad)):
            self._leave(
                padding.name, f"pads by {padding.padding}, not by {pad}"
            )
        elif len(self._readers[padding.name]) > 1:
            self._leave(padding.name, "is read by several layers")
        elif any(n is None or n % 2 for n in padding.input.shape[1:3]):
            maps = tuple(padding.input.shape[1:3])
            self._leave(padding.name, f"pads maps of {maps}, not of even size")
        else:
            before = f"by {padding.padding}"
            self._new_pads[padding.name] = even
            change = SHIFTED.format(pad=pad, before=before)
            self._change(padding.name, change, False)

    def _flatten_head(self, layer):
        """Plans to drop the axes of size one after a global average."""
        if not layer.keepdims:
            return
        found, ends, todo = [], [], list(self._readers.get(layer.name, ()))
        while todo:
            reader = todo.pop()
            if isinstance(reader, layers.Flatten | layers.Reshape) and (
                len(reader.output.shape) == 2
            ):
                ends.append(reader)
            elif (
                reader.name not in self._outputs
                and isinstance(reader, (*_BY_CHANNEL, layers.Conv2D))
                and _works_on_one_pixel(reader)
            ):
                found.append(reader)
                todo += self._readers.get(reader.name, ())
            else:
                reason = "keeps its axes of size one: "
                reason += f"'{reader.name}' needs them"
                self._leave(layer.name, reason)
                return
        if not ends or layer.name in self._outputs:
            self._leave(layer.name, "keeps its axes of size one in the outputs")
            return
        self._flat |= {part.name for part in [layer, *found]}
        self._dropped |= {part.name for part in ends}
        self._change(layer.name, "keeps no axes of size one", True)
        for part in found:
            if isinstance(part, layers.Conv2D):
                self._change(
                    part.name, "becomes `Dense`, with the weights", True
                )
        for part in ends:
            self._change(part.name, "is left out", True)

    def clone(self, layer):
        """Returns a new layer in the place of a layer."""
        config = layer.get_config()
        kind = type(layer)
        if layer.name in self._new_pads:
            config["padding"] = self._new_pads[layer.name]
        elif layer.name in self._pads:
            config["padding"] = "valid"
        elif layer.name in self._flat:
            kind, config = _without_pixels(kind, config)
        if self._scales(layer) and self._scaling.norm is None:
            config["use_bias"] = True
        copy = kind.from_config(config)
        self._copies[layer.name] = layer, copy
        return copy

    def call(self, layer, *args, **kwargs):
        """Calls the replacement of a layer."""
        if layer.name in self._dropped:
            return args[0]
        if layer.name in self._pads:
            pad = self._pads[layer.name]
            name = f"{layer.name}_pad"
            if name not in self._added:  # a layer may be called twice
                self._added[name] = layers.ZeroPadding2D(pad, name=name)
            args = (self._added[name](args[0]), *args[1:])
        outputs = layer(*args, **kwargs)
        if self._scales(layer):
            scale = layers.Rescaling(
                self._scaling.common, name=f"{layer.name}_scale"
            )
            return scale(outputs)
        return outputs

    def _scales(self, layer):
        """Whether the input's scaling moves behind a layer, or its copy."""
        scaling = self._scaling
        return scaling is not None and layer.name == scaling.convolution.name

    def carry_weights(self):
        """Copies the weights of every layer to its replacement."""
        for layer, copy in self._copies.values():
            if self._scales(layer):
                self._scaling.carry(copy)
            elif layer.name not in self._dropped:
                carry_weights(layer, copy)
        if self._scaling is not None and self._scaling.norm is not None:
            _, norm = self._copies[self._scaling.norm.name]
            norm.moving_mean.assign(norm.moving_mean - self._scaling.bias)


def _strided(layer):
    kinds = layers.Conv2D | layers.DepthwiseConv2D
    return isinstance(layer, kinds) and tuple(layer.strides) == (2, 2)


def _works_on_one_pixel(layer):
    """Whether a layer can do without two axes of size one."""
    if len(_keras.calls_of(layer)) > 1:
        return False
    if isinstance(layer, layers.Conv2D):
        return layer.kernel_size == (1, 1) and layer.groups == 1
    if isinstance(layer, layers.BatchNormalization | layers.Softmax):
        return layer.axis in (-1, 3)
    if isinstance(layer, layers.Dropout):
        return layer.noise_shape is None
    return True


def _without_pixels(kind, config):
    """Returns class and config of a layer for inputs of two axes fewer."""
    if issubclass(kind, layers.GlobalAveragePooling2D):
        return kind, {**config, "keepdims": False}
    if issubclass(kind, layers.Conv2D):
        names = (
            "name trainable dtype activation use_bias kernel_initializer "
            "bias_initializer kernel_regularizer bias_regularizer "
            "activity_regularizer kernel_constraint bias_constraint"
        )
        kept = {name: config[name] for name in names.split()}
        return layers.Dense, {**kept, "units": config["filters"]}
    if "axis" in config:
        config = {**config, "axis": -1}
    return kind, config
