"""The network that an export writes: the user's own model, masked."""

import contextlib

import keras

from tf_gems import _keras
from tf_gems.compaction import compact as compact_model
from tf_gems.compaction.comparing import refuse_non_finite_weights
from tf_gems.compaction.comparing import state_kept
from tf_gems.compaction.graph import is_graph
from tf_gems.export.quantized import is_quantized
from tf_gems.export.quantized import quantized_network
from tf_gems.export.signature import Signature
from tf_gems.export.signature import as_array
from tf_gems.export.signature import have_equal_rows
from tf_gems.export.signature import name_outputs
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.layers.wrapped_variable import mined_weight
from tf_gems.network import masked_network
from tf_gems.network import refuse_before_mining
from tf_gems.parity import half_tolerance
from tf_gems.parity import refuse_non_finite
from tf_gems.sparse_model import SparseModel
from tf_gems.validation import check_bool
from tf_gems.validation import check_eager
from tf_gems.validation import check_number

# Examples on which a compact model is compared, before the file is.
_COMPARED = 4


class Network:
    """A model that is to be exported, and what it computes.

    The model is not copied, as it may have state besides its weights and its
    config. It is traced itself, and its kernels are multiplied by their masks
    while it is traced. The export is compared with the model that was passed.

    Args:
        model: `tf_gems.SparseModel`, Keras model that holds
            `tf_gems.GemLayer`s, or plain Keras model.
        inputs: Inputs, for the dtypes of a model that does not declare them.
            Defaults to `None`.
        compact: Whether channels are to be removed, see `compacted`. Defaults
            to `False`.
        eight_bits: Whether a `tf_gems.QuantizationAwareModel` is accepted, as
            the export can be an 8-bit file. Defaults to `False`.
    """

    def __init__(self, model, inputs=None, compact=False, eight_bits=False):
        _refuse_others(model)
        self.gems = find_gem_layers(model)
        if self.gems:
            refuse_before_mining(self.gems, model)
        else:
            _refuse_mined(model)
        self.model = model
        self.quantized = is_quantized(model)
        if self.quantized and not eight_bits:
            raise ValueError(
                "A quantization-aware model can only be exported as an 8-bit "
                f"TFLite file. Received: '{model.name}'. Call "
                '`tf_gems.export_litert(aware, path, form="int8")`, or pass '
                "the float model that `tf_gems.strip` returns."
            )
        self.user_model = model
        if isinstance(model, SparseModel):
            self.user_model = model.model
        self.name = self.user_model.name
        if check_bool(compact, "compact") and not is_graph(self.user_model):
            raise ValueError(
                "`compact=True` requires a built `keras.Sequential` or "
                "functional model, because its graph must be known. "
                f"Received: compact=True, model='{self.name}' of type "
                f"{type(self.user_model).__name__}. Leave `compact=True` out."
            )
        refuse_non_finite_weights(model)
        self.signature = Signature.of(self.user_model, inputs)
        if inputs is not None and len(self.signature.specs) > 1:
            self.signature.in_one_piece = self._take_one_piece(inputs)

    def _take_one_piece(self, inputs):
        """Whether inputs of as many rows can be computed as a whole only."""
        flat = self.signature.flatten(inputs)
        if self.signature.batch_size or not have_equal_rows(flat):
            return False
        try:
            self.outputs([[value[:1] for value in flat]])
        except Exception:
            with contextlib.suppress(Exception):  # not for these inputs at all
                self.outputs([flat])
                return True
        return False

    def masked(self):
        """Yields the model itself, masked within the block.

        For a `tf_gems.QuantizationAwareModel`, it is a `QuantizedNetwork`.
        """
        if self.quantized:
            return quantized_network(self.model)
        return masked_network(self.model)

    def compacted(self, plain, given):
        """Returns a model without dead channels and its `CompactionReport`.

        Both models are compared on the first examples of `given`.
        """
        if self.signature.is_batched(given):
            size = self.signature.batch_size or _COMPARED
            given = [value[:size] for value in given]
        tensors = self.signature.named_tensors(given).values()
        [inputs] = self.signature.pack(tensors)
        return compact_model(plain, inputs)

    def tolerance(self, given, least, dtype=None):
        """Returns the largest difference of outputs that is accepted.

        That is what the user has given, or the least for a network that
        computes in float32, or what the type of 16 bits allows.
        """
        if given is not None:
            check_number(given, "tolerance", 0)
            return given
        return max(least, half_tolerance(self.user_model, dtype))

    def expected(self, batches):
        """Returns `outputs`, or raises an error if one is not finite."""
        found = self.outputs(batches)
        refuse_non_finite(found, self.name)
        return found

    def outputs(self, batches, model=None):
        """Returns what the model computes, one dict of arrays for each batch.

        State, such as that of recurrent layers and random generators, changes
        from batch to batch and is restored at the end.
        """
        import tensorflow as tf

        model = self.model if model is None else model

        def call(*tensors):
            # This draws a seed: later code must not draw the same numbers.
            tf.random.uniform(())
            arguments = self.signature.pack(tensors)
            return name_outputs(model(*arguments, training=False))

        # As `predict` computes it: some layers round otherwise when they are
        # called eagerly, such as `Resizing` of integers.
        traced = tf.function(call, autograph=False, reduce_retracing=True)
        found = []
        with state_kept(model):
            for batch in batches:
                tensors = self.signature.named_tensors(batch).values()
                try:
                    outputs = traced(*tensors)
                except Exception:
                    outputs = call(*tensors)  # its own error, or eager code
                found.append({k: as_array(v) for k, v in outputs.items()})
        return found

    def given(self, inputs, batch_size=4):
        """Returns a flat list of arrays: inputs, or examples without any.

        They are one batch, of the size that the model declares.
        """
        size = self.signature.batch_size
        if inputs is None:
            return self.examples(size or batch_size)
        flat = self.signature.flatten(inputs)
        if size is None or not self.signature.is_batched(flat):
            return flat
        if len(flat[0]) < size:
            raise ValueError(
                "`inputs` must contain at least one batch of examples. "
                f"Received: inputs of {len(flat[0])} examples, where "
                f"'{self.name}' takes {size} at a time. Pass more."
            )
        return [value[:size] for value in flat]

    def examples(self, batch_size):
        """Returns inputs for the model, see `Signature.examples`."""
        words = [
            word
            for part in _keras.flatten_layers(self.user_model)
            if hasattr(part, "get_vocabulary")
            for word in part.get_vocabulary()
            if word and isinstance(word, str)
        ]
        return self.signature.examples(batch_size, words)


def other_types(model):
    """Returns the names of types but float32 that layers compute in."""
    return sorted({layer.compute_dtype for layer in _in_other_types(model)})


def _in_other_types(model):
    return [
        layer
        for layer in _keras.flatten_layers(model)
        if layer.compute_dtype not in ("float32", None)
        and "float" in layer.compute_dtype
        and not layer.dtype_policy.quantization_mode
    ]


@contextlib.contextmanager
def computed_in_float32(model):
    """Makes every layer of a model compute in float32 within the block."""
    others = [(layer, layer.dtype_policy) for layer in _in_other_types(model)]
    try:
        for layer, policy in others:
            layer.dtype_policy = _Float32(policy.variable_dtype)
        yield
    finally:
        for layer, policy in others:
            layer.dtype_policy = policy


class _Float32(keras.DTypePolicy):
    """Computes in float32 with variables of another type, which Keras casts."""

    def __init__(self, variable_dtype):
        super().__init__("float32")
        self._variable_dtype = variable_dtype


def _refuse_others(model):
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
    check_eager()
    backend = keras.backend.backend()
    if backend != "tensorflow":
        raise RuntimeError(
            "An export requires the TensorFlow backend of Keras. Received: "
            f"keras.backend.backend()={backend!r}. Save the network with "
            "`tf_gems.strip(model).save('plain.keras')`, then load and "
            "export it in a process with KERAS_BACKEND=tensorflow."
        )


def _refuse_mined(model):
    """Refuses the user's model, or a part of it, that a wrapper is mining."""
    weight = mined_weight(model)
    if weight is not None:
        raise ValueError(
            "A model that is being mined cannot be exported by itself, "
            "because its masks belong to the model that wraps it. Received: "
            f"'{model.name}', whose weight '{weight.path}' is being mined. "
            "Pass the `tf_gems.SparseModel`, or the model that "
            "`tf_gems.strip` returns for it."
        )
