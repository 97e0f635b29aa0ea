"""Conversion of Keras 3 models to and from `tf_keras` (Keras 2).

TF Model Optimization (tfmot) supports only models of `tf_keras`. A stripped
model can be converted to `tf_keras` and back:

```python
# TF_USE_LEGACY_KERAS=1 python this.py
import tensorflow_model_optimization as tfmot
import keras, tf_gems
from tf_gems.export import from_tf_keras, to_tf_keras

plain = keras.models.load_model("stripped.keras")
twin = to_tf_keras(plain)

quantize = tfmot.quantization.keras
scheme = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
aware = quantize.quantize_apply(
    quantize.quantize_annotate_model(twin), scheme=scheme
)
aware.compile("sgd", loss)  # a Keras 2 loss, or its name
aware.fit(images, labels)

from_tf_keras(aware, plain)  # trained weights; zeros are zero still
```

tfmot sets `TF_USE_LEGACY_KERAS` when it is imported, which makes `tf.keras` in
this process and in child processes Keras 2. So use it in a separate process.
There, `import keras` and this library still use Keras 3.
"""

import keras
import numpy as np

from tf_gems import _keras
from tf_gems.compaction.graph import function_of
from tf_gems.compaction.graph import is_graph
from tf_gems.export import tf_keras_layer
from tf_gems.export.network import Network
from tf_gems.export.signature import as_array
from tf_gems.parity import measure_parity
from tf_gems.validation import check_model

_TOLERANCE = 1e-4


def to_tf_keras(model):
    """Builds the same network in `tf_keras`, with the same weights.

    A new graph of `tf_keras` layers is built, and the outputs of both models
    are compared on random inputs. Activations, regularizers and constraints
    are those of `tf_keras` with the same names. Initializers and the arguments
    of `compile` are not converted.

    Args:
        model: `tf_gems.SparseModel`, or plain
            sequential or functional Keras 3 model. Models may be nested.

    Returns:
        `tf_keras.Model`, whose layers have the names of the model's.

    Raises:
        ImportError: If there is no `tf_keras`.
        RuntimeError: If the outputs of the twin differ, nothing has been
            pruned yet, or Keras does not run on TensorFlow.
        ValueError: If the model is subclassed, or has layers or operations
            that cannot be converted. The message names all of them with the
            reason.

    Example:

    ```python
    twin = to_tf_keras(tf_gems.strip(sparse))
    twin.save("twin.h5")
    ```
    """
    network = Network(model)
    _import_tf_keras()
    refused = {}
    with network.masked() as plain:
        twin = _twin(plain, refused)
    if refused:
        lines = [f"'{name}': {reason}" for name, reason in refused.items()]
        raise ValueError(
            "Every layer must have a counterpart in `tf_keras`. Received: "
            f"model='{plain.name}' with {len(refused)} layers that have none: "
            f"{'; '.join(lines)}. Replace these layers, or export the model "
            "directly."
        )
    inputs = network.given(None, 2)
    [expected] = network.outputs([inputs])
    [argument] = network.signature.pack(inputs)
    found = keras.tree.flatten(twin(argument, training=False))
    parity = measure_parity(
        dict(enumerate(expected.values())),
        dict(enumerate(map(as_array, found))),
    )
    if not parity.within(_TOLERANCE):
        raise RuntimeError(
            "The outputs of a twin must equal those of the model. Received: "
            f"model='{plain.name}', whose twin differs by "
            f"{parity.difference:.3g}, where the largest output is "
            f"{parity.magnitude:.3g}. Export the model directly."
        )
    return twin


def from_tf_keras(twin, model, restore_zeros=False):
    """Sets the weights of a Keras 3 model to those of its twin.

    Wrappers of tfmot for pruning and quantization-aware training are removed.
    Their variables, such as ranges of activations, are not copied.

    Args:
        twin: `tf_keras` model that `to_tf_keras` returned, trained or changed
            by functions that keep the names of its layers, with or without a
            prefix, as those of tfmot do.
        model: Plain Keras 3 model from which the twin was created. Either all
            or none of its weights are replaced.
        restore_zeros: Whether to set pruned weights to zero that the twin has
            changed. tfmot's scheme keeps the zeros of convolutions and dense
            layers, but not those of depthwise convolutions. Defaults to
            `False`.

    Raises:
        RuntimeError: If a pruned weight of the model is not zero in the twin,
            unless `restore_zeros` is `True`. No weight is changed.
        ValueError: If a layer of the model is missing in the twin, or has
            weights of other shapes.

    Example:

    ```python
    from_tf_keras(quantization_aware, plain)
    plain.save("finetuned.keras")
    ```
    """
    check_model(model)
    if not hasattr(twin, "layers"):
        raise ValueError(
            "A twin must be a model of tf_keras. Received: "
            f"twin={twin!r:.100}. Pass the model that `to_tf_keras` returned, "
            "or the one that tfmot created from it."
        )
    theirs = {tf_keras_layer.name_of(layer): layer for layer in _layers(twin)}
    values, lost = [], []
    for layer in _layers(model):
        if not layer.weights:
            continue
        ours = [tuple(weight.shape) for weight in layer.weights]
        found = theirs.get(layer.name)
        if found is not None:
            found = tf_keras_layer.weights_like(layer, found)
        if found is None or [value.shape for value in found] != ours:
            got = "none" if found is None else [v.shape for v in found]
            raise ValueError(
                "A twin must have every layer of the model, with weights of "
                f"the same shapes. Received: model='{model.name}' with layer "
                f"'{layer.name}' of weights {ours}, for which the twin has "
                f"{got}. Pass the model that `to_tf_keras` returned, or the "
                "one that tfmot created from it."
            )
        for weight, value in zip(layer.weights, found, strict=True):
            before = keras.ops.convert_to_numpy(weight)
            if weight.trainable and before.ndim > 1:
                count = np.count_nonzero(value[before == 0])
                if count:
                    lost.append(f"'{weight.path}': {count:,}")
                value = np.where(before == 0, 0, value)
            values.append((weight, value))
    if lost and not restore_zeros:
        raise RuntimeError(
            "Pruned weights must stay zero. Received: a twin in which they "
            f"are not zero: {'; '.join(lost)}. Train it with tfmot's "
            "`Default8BitPrunePreserveQuantizeScheme`, or pass "
            "`restore_zeros=True`."
        )
    for weight, value in values:
        weight.assign(value)


def _import_tf_keras():
    try:
        import tf_keras
    except ImportError as error:
        raise ImportError(
            "A twin requires the package `tf_keras`, which is not installed. "
            "`pip install tf_gems[tfmot]`."
        ) from error
    return tf_keras


def _twin(model, refused):
    """Returns the twin of a model, or `None` after adding to `refused`."""
    tf_keras = _import_tf_keras()
    if not is_graph(model):
        refused[model.name] = (
            "only sequential and functional models are supported"
        )
        return None
    graph, twins = function_of(model), {}
    for operation in graph.operations:
        try:
            if isinstance(operation, keras.Model):
                twins[id(operation)] = _twin(operation, refused)
            elif not isinstance(operation, keras.layers.InputLayer):
                twins[id(operation)] = tf_keras_layer.convert(operation)
        except (KeyError, TypeError, ValueError) as error:
            refused[operation.name] = " ".join(str(error).split())
    if refused:
        return None
    inputs = [
        tf_keras.Input(
            shape=tuple(symbol.shape[1:]),
            batch_size=symbol.shape[0],
            dtype=symbol.dtype,
            name=symbol.name,
        )
        for symbol in graph.inputs
    ]
    outputs = _keras.run_through_graph(
        graph, inputs, lambda operation: twins[id(operation)]
    )
    twin = tf_keras.Model(
        keras.tree.pack_sequence_as(_keras.inputs_struct(graph), inputs),
        outputs,
        name=model.name,
    )
    for layer in graph.operations:
        # The weights of a nested model are those of its own twin already.
        if isinstance(layer, keras.Layer) and not isinstance(
            layer, keras.Model
        ):
            if layer.weights:
                twins[id(layer)].set_weights(layer.get_weights())
    return twin


def _layers(model):
    """Yields the layers of a model and of the models in it."""
    for layer in model.layers:
        yield from _layers(layer) if hasattr(layer, "layers") else [layer]
