"""The plain Keras network that an export writes."""

import contextlib

import keras
from keras.src.export.export_utils import get_input_signature

from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.network import strip
from tf_gems.sparse_model import SparseModel


def plain_network(model, inputs=None):
    """Returns a plain Keras model and the signature of its inputs.

    Args:
        model: `tf_gems.SparseModel`, Keras model that holds
            `tf_gems.GemLayer`s, or plain Keras model.
        inputs: Inputs that give the signature of a model that does not tell
            it. Defaults to `None`.

    Returns:
        `(plain, signature)`: a Keras model, the given one if it is plain, and
        a list of structures of `keras.InputSpec`, one for each argument.

    Raises:
        RuntimeError: If nothing has been pruned yet, or Keras does not run on
            TensorFlow.
        ValueError: If the model is not of Keras 3, or not built.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(
            "Only Keras 3 models can be exported. Received: "
            f"model={type(model).__name__} from `{type(model).__module__}`. "
            "Build the model with `import keras`."
        )
    if not model.built:
        raise ValueError(
            "A model must be built before it is exported. Received: "
            f"model='{model.name}', which has no weights yet. Call it once "
            "on data."
        )
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            "An export needs Keras on TensorFlow. Received: "
            f"keras.backend.backend()={backend!r}. Write the network with "
            "`tf_gems.strip(model).save('plain.keras')`, then load and export "
            "it in a process with KERAS_BACKEND=tensorflow."
        )
    plain = strip(model) if find_gem_layers(model) else model
    told = model.model if isinstance(model, SparseModel) else model
    return plain, _signature(told, inputs)


def _signature(model, inputs):
    try:
        signature = get_input_signature(model)
    except ValueError as error:
        if inputs is None:
            raise ValueError(
                "A subclassed model tells its inputs only once it has been "
                f"called. Received: model='{model.name}', which was not. "
                "Pass `inputs`."
            ) from error
        signature = [keras.tree.map_structure(_spec, inputs)]
    count = iter(range(len(keras.tree.flatten(signature))))

    def name(spec):
        return keras.InputSpec(
            shape=spec.shape,
            dtype=spec.dtype,
            name=spec.name or f"input_{next(count)}",
        )

    return keras.tree.map_structure(name, signature)


def _spec(value):
    dtype = keras.backend.standardize_dtype(value.dtype)
    return keras.InputSpec(shape=(None, *value.shape[1:]), dtype=dtype)


def with_batch_size(signature, batch_size):
    """Returns a signature that takes batches of one size."""
    return keras.tree.map_structure(
        lambda spec: keras.InputSpec(
            shape=(batch_size, *spec.shape[1:]),
            dtype=spec.dtype,
            name=spec.name,
        ),
        signature,
    )


@contextlib.contextmanager
def computed_in_float32(model):
    """Makes every layer compute in float32 for a while.

    Args:
        model: Keras model.

    Yields:
        Whether any layer computed in another type before.
    """
    others = [
        (layer, layer.dtype_policy)
        for layer in model._flatten_layers()
        if layer.compute_dtype not in ("float32", None)
    ]
    try:
        for layer, _ in others:
            layer.dtype_policy = "float32"
        yield bool(others)
    finally:
        for layer, policy in others:
            layer.dtype_policy = policy
