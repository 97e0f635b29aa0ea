"""A Keras model that trains as its 8-bit file will compute."""

import itertools
import re

import keras
import numpy as np

from tf_gems import _keras
from tf_gems import training_data
from tf_gems import training_logic
from tf_gems.compaction.graph import function_of
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.network import unwrap
from tf_gems.quantization.quantized_layer import QuantizedLayer
from tf_gems.sparse_model import SparseModel
from tf_gems.validation import check_eager
from tf_gems.validation import check_model
from tf_gems.validation import check_number
from tf_gems.validation import check_positive_integer

# Largest difference of outputs before rounding, as a fraction of the largest.
_TOLERANCE = 1e-3


@keras.saving.register_keras_serializable(package="tf_gems")
class QuantizationAwareModel(SparseModel):
    """Trains a model with the rounding of 8-bit integers, and keeps its zeros.

    The model computes with fake-quantized kernels and activations, which are
    rounded where LiteRT rounds them. `evaluate` thus measures the accuracy of
    the 8-bit file. `fit` adapts the weights to the rounding and updates the
    ranges of activations. Kernels are rounded per output channel,
    symmetrically to [-127, 127], and activations per tensor to [-128, 127].
    Weights that are zero stay exactly zero.

    `tf_gems.export_litert(aware, path, form="int8")` writes the file with the
    ranges that were learned. `tf_gems.strip(aware)` returns the user's own
    model with the trained float weights.

    The model is not copied: it becomes a part of this one.

    Args:
        model: Built Keras 3 model of any kind, pruned and stripped or not,
            that computes in float32. Custom layers are traced through their
            `call`, which can use other layers, `keras.ops` and the weights
            that are attributes of the layer. An error names the layers that
            LiteRT does not compute in 8-bit integers.
        representative_data: Inputs for initializing the ranges, a hundred real
            examples or more: arrays, or a data set that yields inputs or
            tuples of inputs and targets.
        momentum: Float in [0, 1], the momentum of the moving averages of the
            ranges. Defaults to `0.99`.
        batches: Positive integer, the largest number of batches that are read
            from the representative data. Defaults to `100`.
        filters: Which weights count as prunable, see `tf_gems.SparseModel`.
            Defaults to `"all"`.
        **kwargs: See `tf_gems.SparseModel`.

    Raises:
        RuntimeError: If the operators of the model, before rounding, do not
            compute its outputs.
        ValueError: If there is no representative data, or a part of the model
            cannot be quantized.

    Example:

    ```python
    aware = tf_gems.QuantizationAwareModel(tf_gems.strip(sparse), x)
    aware.compile(keras.optimizers.Adam(1e-4), loss, metrics=["accuracy"])
    aware.fit(x, y, epochs=3, validation_data=validation)
    tf_gems.export_litert(aware, "model.tflite", form="int8")
    ```

    Reference: Jacob et al., 2018, "Quantization and Training of Neural
    Networks for Efficient Integer-Arithmetic-Only Inference".
    """

    def __init__(
        self,
        model,
        representative_data=None,
        momentum=0.99,
        batches=100,
        filters="all",
        **kwargs,
    ):
        check_eager()
        check_number(momentum, "momentum", least=0.0, most=1.0)
        check_positive_integer(batches, "batches")
        _refuse(model)
        data = None
        inputs = kwargs.pop("inputs", None)  # of a model that was saved
        if inputs is None:
            data = _Inputs(representative_data, model)
            first = data.first()
            inputs = _described(model, first)
        self._inputs_described = inputs
        self._momentum = momentum
        kwargs.setdefault("start", "trained")
        if "phase" in kwargs:  # as it was saved
            kwargs.pop("start")
        super().__init__(model, filters=filters, **kwargs)
        if data is not None:
            try:
                self.gem.calibrate(itertools.islice(data, batches))
            except Exception as error:
                unwrap(self)  # the model is as it was
                raise data.refusal(error) from error
            self._refuse_difference(first)

    def _wrapped(self, model, **kwargs):
        inputs = _symbols(self._inputs_described)
        return QuantizedLayer(model, inputs, self._momentum, **kwargs)

    def _refuse_difference(self, inputs):
        """Refuses a model whose operators compute something else."""
        difference = self.gem.difference(inputs)
        if not difference <= _TOLERANCE:
            name = self.model.name
            unwrap(self)  # the model is as it was
            raise RuntimeError(
                "The operators of a model must compute its outputs, up to "
                f"{_TOLERANCE:g} of the largest output. Received: '{name}', "
                f"for which they differ by {difference:.2g}. Quantize after "
                'training: `tf_gems.export_litert(model, path, form="int8", '
                "representative_data=...)`."
            )

    def _prepare_to_compile(self):
        _refuse_own_training(self.model)
        super()._prepare_to_compile()

    def ranges(self):
        """Returns the ranges of activations.

        Returns:
            Dict from the names of tensors to `(low, high)`.
        """
        found = {}
        for name, limits in zip(
            self.gem.range_names, self.gem.limits(), strict=True
        ):
            count = sum(key.partition(":")[0] == name for key in found)
            found[f"{name}:{count}" if count else name] = limits
        return found

    def export(self, filepath, *args, **kwargs):
        """Raises an error: the 8-bit file is written by `export_litert`."""
        raise ValueError(
            "A quantization-aware model must be exported as an 8-bit file. "
            f"Received: `export` of '{self.name}'. Call "
            '`tf_gems.export_litert(aware, path, form="int8")`, or export '
            "the float model that `tf_gems.strip` returns."
        )

    def get_config(self):
        return {
            **super().get_config(),
            "momentum": self._momentum,
            "inputs": self._inputs_described,
        }


def _refuse(model):
    """Raises an error for what cannot be trained with quantization."""
    check_model(model)
    if find_gem_layers(model):
        raise ValueError(
            "A model must be quantized after it has been pruned. Received: "
            f"'{model.name}' of type {type(model).__name__}, which is still "
            "being pruned. Pass the model that `tf_gems.strip` returns: its "
            "zeros stay zero."
        )
    _refuse_own_training(model)
    for part in _keras.flatten_layers(model):
        types = {part.compute_dtype, part.variable_dtype} - {None}
        if any("float" in t for t in types) and types != {"float32"}:
            raise ValueError(
                "Quantization-aware training computes in float32, which "
                "represents 8-bit steps exactly. Received: layer "
                f"'{part.name}' of '{model.name}' with "
                f"dtype={part.dtype_policy.name!r}. Build the model with the "
                'policy "float32", and load its weights.'
            )


def _refuse_own_training(model):
    own = training_logic.overridden(model)
    if own:
        raise ValueError(
            "Quantization-aware training uses the training step of Keras. "
            f"Received: '{model.name}' of type {type(model).__name__}, which "
            f"overrides `{'`, `'.join(own)}`. Put the "
            "`tf_gems.QuantizationAwareModel` of its network inside a model "
            "with this training step."
        )


class _Inputs:
    """The inputs of representative data, batch by batch.

    Args:
        data: See `QuantizationAwareModel`.
        model: Keras model.
    """

    def __init__(self, data, model):
        self.given = data
        self.model = model
        self._batches = None

    def __iter__(self):
        """Returns the iterator over all batches, from the first one."""
        if self._batches is None:
            size = _declared_size(self.model)
            arguments = {} if size is None else {"batch_size": size}
            data = training_data.read(self.given, None, self.model, **arguments)
            self._batches = (
                batch[0] for batch in data if size in (None, _size_of(batch[0]))
            )
        return self._batches

    def first(self):
        """Returns the first batch, which a generator yields only once."""
        try:
            batch = next(iter(self))
            self._batches = itertools.chain([batch], self._batches)
            return batch
        except StopIteration:
            size = _declared_size(self.model)
            of = "" if size is None else f" of {size} examples"
            raise self.refusal(f"it has no batch{of}") from None
        except Exception as error:
            raise self.refusal(error) from error

    def refusal(self, reason):
        """Returns the error for data that cannot be used."""
        given = " ".join(repr(self.given).split())[:80]
        reason = re.sub(r"\x1b\[\d*m", "", str(reason))  # Keras is bold
        reason = " ".join(reason.split())[:300].rstrip(".")
        return ValueError(
            "The ranges of activations are initialized with examples. "
            f"Received: representative_data={given} for '{self.model.name}': "
            f"{reason}. Pass a hundred real inputs or more, as for `fit`."
        )


def _declared_size(model):
    """Returns the batch size that a model declares, or `None`."""
    function = function_of(model)
    if not isinstance(function, _keras.Functional):
        return None
    sizes = {x.shape[0] for x in function.inputs if x.shape} - {None}
    return sizes.pop() if len(sizes) == 1 else None


def _size_of(inputs):
    return len(keras.tree.flatten(inputs)[0])


def _described(model, inputs):
    """Returns the shapes and dtypes of a model's inputs, to be saved."""
    function = function_of(model)
    if isinstance(function, _keras.Functional):
        return keras.tree.map_structure(
            lambda x: _spec(x.shape, x.dtype, x.name),
            _keras.inputs_struct(function),
        )
    paths = keras.tree.flatten_with_path(inputs)
    specs = [
        _spec(
            (None, *np.shape(x)[1:]),
            keras.backend.standardize_dtype(x.dtype),
            "/".join(map(str, path)) or "input",
        )
        for path, x in paths
    ]
    return keras.tree.pack_sequence_as(inputs, specs)


def _spec(shape, dtype, name):
    if "float" not in dtype:
        raise ValueError(
            "The inputs of a quantized model must be floats. Received: input "
            f"'{name}' with dtype={dtype!r}. Remove the layers that read "
            "integers from the model, or cast the inputs first."
        )
    return {"shape": list(shape), "dtype": "float32", "name": name}


def _symbols(described):
    """Returns symbolic tensors of what `_described` returned."""
    if isinstance(described, dict) and set(described) == {
        "shape",
        "dtype",
        "name",
    }:
        return keras.KerasTensor(
            tuple(described["shape"]),
            described["dtype"],
            name=described["name"],
        )
    if isinstance(described, dict):
        return {key: _symbols(value) for key, value in described.items()}
    return [_symbols(value) for value in described]
