"""The inputs and outputs of a network: names, shapes and dtypes."""

import functools
import inspect
import keyword
import re

import keras
import numpy as np

from tf_gems import _keras

_UNKNOWN_SIZE = 32


class Signature:
    """The inputs of a network, as a flat list of named specs.

    Inputs that have names are matched by name. A dict of inputs is never
    matched with a list by sorted keys.

    Args:
        arguments: List of structures of `keras.InputSpec`, one for each
            positional argument of the model.

    Attributes:
        specs: List of `keras.InputSpec`, flat, with distinct names.
        batch_size: Integer if the model declares one, else `None`.
        in_one_piece: Whether inputs of as many rows are no batch of examples,
            such as the features of the nodes of a graph and its adjacency
            matrix.
    """

    in_one_piece = False

    def __init__(self, arguments):
        self._arguments = arguments
        flat = keras.tree.flatten(arguments)
        self.specs = _named(arguments, flat)
        sizes = {spec.shape[0] for spec in flat if spec.shape} - {None}
        self.batch_size = sizes.pop() if len(sizes) == 1 else None

    @classmethod
    def of(cls, model, inputs=None):
        """Returns the signature of a model.

        A functional model declares its inputs. For a subclassed model Keras
        records the shapes of the first call, but not the dtypes, which are
        read from `inputs`.
        """
        declared = getattr(model, "inputs", None)  # unless built by a call
        if isinstance(model, keras.Sequential) and declared:
            spec = _declared(declared[0])
            if spec.shape and not _has_states(model):
                # It may be that of the first call: Keras tells no difference.
                spec.shape = (None, *spec.shape[1:])
            return cls([spec])
        if isinstance(model, _keras.Functional):
            declared = _keras.inputs_struct(model)
            return cls([keras.tree.map_structure(_declared, declared)])
        recorded = _keras.recorded_shapes(model)
        if inputs is not None:
            count = len(recorded) or _count_positional(model)
            arguments = [inputs]
            if count > 1 and isinstance(inputs, dict):
                arguments = inputs.values()
            elif count > 1 and isinstance(inputs, list | tuple):
                arguments = inputs
            spec_of = functools.partial(_spec_of, dtype=model.compute_dtype)
            return cls(
                [keras.tree.map_structure(spec_of, x) for x in arguments]
            )
        if not recorded or _reads_integers(model):
            raise ValueError(
                "Keras does not record the dtypes of the inputs of a "
                f"subclassed model. Received: model='{model.name}' of type "
                f"{type(model).__name__}, inputs=None. Pass a few examples as "
                "`inputs`."
            )
        return cls(
            [_recorded(shape, model.input_dtype) for shape in recorded.values()]
        )

    def with_sizes(self, sizes):
        """Returns the signature with other sizes of first axes."""
        sizes = iter(sizes or [None] * len(self.specs))

        def sized(spec):
            size = next(sizes)
            shape = spec.shape and (size, *spec.shape[1:])
            return keras.InputSpec(shape=shape, dtype=spec.dtype)

        return self._changed(sized)

    def in_float32(self):
        """Returns the signature with all other floats as float32."""

        def cast(spec):
            dtype = "float32" if "float" in spec.dtype else spec.dtype
            return keras.InputSpec(shape=spec.shape, dtype=dtype)

        return self._changed(cast)

    def _changed(self, change):
        found = Signature(keras.tree.map_structure(change, self._arguments))
        found.in_one_piece = self.in_one_piece
        for spec, mine in zip(found.specs, self.specs, strict=True):
            spec.name = mine.name
        return found

    def pack(self, flat):
        """Returns the positional arguments of a call, from a flat list."""
        return keras.tree.pack_sequence_as(self._arguments, list(flat))

    def flatten(self, inputs):
        """Returns inputs, as the model takes them, as a flat list of arrays."""
        one = len(self._arguments) == 1
        if isinstance(inputs, dict):
            flat = self._by_name(inputs)
        else:
            flat = keras.tree.flatten([inputs] if one else list(inputs))
        if len(flat) != len(self.specs):
            raise ValueError(
                "`inputs` must have the structure that the model takes. "
                f"Received: {len(flat)} arrays, where the model takes "
                f"{len(self.specs)}: "
                f"{', '.join(repr(spec.name) for spec in self.specs)}. Pass "
                "one array for each input."
            )
        flat = [
            _fitted(value, spec)
            for value, spec in zip(flat, self.specs, strict=True)
        ]
        if not any(value.size for value in flat):
            raise ValueError(
                "`inputs` must contain at least one batch of examples. "
                "Received: inputs of shapes "
                f"{[value.shape for value in flat]}. Pass some examples, or "
                "leave `inputs` out."
            )
        return flat

    def _by_name(self, inputs):
        structure = self._arguments
        if len(structure) == 1 and isinstance(structure[0], dict):
            inputs = {key: inputs.get(key) for key in structure[0]}
            return keras.tree.flatten(inputs)
        names = [spec.name for spec in keras.tree.flatten(structure)]
        if None in names:
            names = [spec.name for spec in self.specs]
        missing = [name for name in names if name not in inputs]
        if missing:
            raise ValueError(
                "The keys of a dict of inputs must be the names of the "
                f"model's inputs. Received: keys {list(map(str, inputs))}, "
                f"where the model takes {names}; missing: {missing}. Pass an "
                "array for each name, or a list."
            )
        return [inputs[name] for name in names]

    def is_batched(self, flat):
        """Whether arrays are a batch of examples, which can be cut."""
        return not self.in_one_piece and have_equal_rows(flat)

    def examples(self, batch_size, words=()):
        """Returns flat inputs, the same ones each time.

        Floats are standard normal. Integers are 0 or 1, which any embedding
        or table has. Strings are from the list `words`, if it is not empty.
        """
        random = np.random.default_rng(0)
        words = list(words) or ["a", "b"]

        def example(spec):
            shape = [size or _UNKNOWN_SIZE for size in spec.shape]
            if shape and spec.shape[0] is None:
                shape[0] = batch_size
            if spec.dtype == "string":
                return random.choice(words, shape).astype(object)
            if "float" in spec.dtype or "complex" in spec.dtype:
                return random.normal(size=shape).astype(_numpy(spec.dtype))
            return random.integers(0, 2, shape).astype(_numpy(spec.dtype))

        return [example(spec) for spec in self.specs]

    def feed(self, flat):
        """Returns a dict from the names of inputs to arrays."""
        return {
            spec.name: value
            if spec.dtype == "string"
            else np.asarray(value, _numpy(spec.dtype))
            for spec, value in zip(self.specs, flat, strict=True)
        }

    def named_tensors(self, flat):
        """Returns a dict from the names of inputs to tensors."""
        import tensorflow as tf

        # Keras and TensorFlow take no arrays of strings.
        return {
            spec.name: tf.constant(value, spec.dtype)
            for spec, value in zip(self.specs, flat, strict=True)
        }


def name_outputs(outputs):
    """Returns a dict from names to the outputs of any structure.

    The keys of a flat dict are its names. Otherwise they are `"output_0"`
    and so on; deeper structures give the keys on the way, joined by `"_"`.
    Outputs that are `None` are left out.
    """
    found = {}
    for path, value in keras.tree.flatten_with_path(outputs):
        if value is None:
            continue
        name = "_".join(map(str, path))
        if not any(isinstance(step, str) for step in path):
            name = f"output_{len(found)}"
        while name in found:
            name += "_"
        found[name] = value
    return found


def as_dense(value):
    """Returns a tensor without ragged or sparse axes."""
    import tensorflow as tf

    if isinstance(value, tf.SparseTensor):
        return tf.sparse.to_dense(value)
    if isinstance(value, tf.RaggedTensor):
        return value.to_tensor()
    return value


def as_array(value):
    """Returns a tensor's values as a dense array; strings as objects."""
    value = as_dense(value)
    return np.asarray(value.numpy() if hasattr(value, "numpy") else value)


def have_equal_rows(flat):
    """Whether all arrays have as many rows."""
    return all(np.ndim(x) for x in flat) and len({len(x) for x in flat}) == 1


def _named(arguments, flat):
    """Returns the specs with distinct names that TensorFlow accepts."""
    keys = [None] * len(flat)
    if len(arguments) == 1 and isinstance(arguments[0], dict):
        if len(arguments[0]) == len(flat):
            keys = keras.tree.flatten({key: key for key in arguments[0]})
    # Names of arguments in Python: TensorFlow's own is `self`.
    named, taken = [], {"self", *keyword.kwlist}
    for number, (spec, key) in enumerate(zip(flat, keys, strict=True)):
        name = spec.name or key or f"input_{number}"
        name = re.sub(r"\W", "_", str(name), flags=re.ASCII)
        if not name[0].isalpha():
            name = f"input_{name}"
        while name in taken:
            name += "_"
        taken.add(name)
        shape = spec.shape
        named.append(keras.InputSpec(shape=shape, dtype=spec.dtype, name=name))
    return named


def _has_states(model):
    """Whether a layer keeps a state for each example of a batch."""
    return any(
        getattr(part, "stateful", False)
        for part in _keras.flatten_layers(model, include_self=False)
    )


def _declared(tensor):
    return keras.InputSpec(
        shape=tuple(tensor.shape),
        dtype=keras.backend.standardize_dtype(tensor.dtype),
        name=tensor.name,
    )


def _recorded(shape, dtype):
    """Returns specs for the shapes of the first call of a model."""
    if isinstance(shape, dict):
        return {key: _recorded(value, dtype) for key, value in shape.items()}
    if all(isinstance(size, int | None) for size in shape):
        return keras.InputSpec(shape=(None, *shape[1:]), dtype=dtype)
    return type(shape)(_recorded(value, dtype) for value in shape)


def _spec_of(value, dtype):
    """Returns the spec of an array for a model that computes in a dtype."""
    value, computed = _as_array(value), dtype
    dtype = value.dtype.name
    if value.dtype.kind in "OSU":
        dtype = "string"
    elif dtype == "float64" and computed != "float64":
        dtype = keras.config.floatx()  # as Keras casts what it is given
    shape = tuple(value.shape)
    return keras.InputSpec(shape=shape and (None, *shape[1:]), dtype=dtype)


def _as_array(value):
    if hasattr(value, "numpy") and not isinstance(value, np.ndarray):
        value = value.numpy()
    return np.asarray(value)


def _fitted(value, spec):
    """Returns a value as an array of the spec's dtype and rank."""
    if value is None:
        raise ValueError(
            "An export requires every input of the model. Received: None for "
            f"input '{spec.name}'. Pass an array."
        )
    kind = type(value).__name__
    value = _as_array(value)
    is_text = value.dtype.kind in "OSU"
    if is_text != (spec.dtype == "string"):
        if value.dtype != object:
            kind = value.dtype
        raise ValueError(
            "`inputs` must be arrays with the dtypes that the model takes. "
            f"Received: {kind} for input '{spec.name}' of {spec.dtype}. Pass "
            "such an array; for a dataset, pass examples taken from it."
        )
    value = value.astype(object if is_text else _numpy(spec.dtype))
    rank = len(spec.shape)
    if value.ndim == rank - 1 and spec.shape[-1] == 1:
        value = value[..., None]  # as Keras does
    elif value.ndim == rank + 1 and value.shape[-1] == 1:
        value = value[..., 0]
    fits = value.ndim == rank and all(
        size in (None, length)
        for size, length in zip(spec.shape[1:], value.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(
            "`inputs` must have the shapes that the model takes. Received: "
            f"shape {value.shape} for input '{spec.name}' of shape "
            f"{tuple(spec.shape)}. Pass such an array."
        )
    return value


def _numpy(dtype):
    if dtype == "bfloat16":
        import ml_dtypes

        return ml_dtypes.bfloat16
    return dtype


def _count_positional(model):
    """Returns how many positional arguments a call of the model needs."""
    parameters = inspect.signature(model.call).parameters.values()
    return sum(
        p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        and p.default is p.empty
        and p.name not in ("training", "mask")
        for p in parameters
    )


def _reads_integers(model):
    """Whether a network has layers that read integers or text."""
    names = "CategoryEncoding Embedding Hashing IntegerLookup StringLookup"
    names = [*names.split(), "TextVectorization"]
    readers = tuple(getattr(keras.layers, name) for name in names)
    return any(isinstance(x, readers) for x in _keras.flatten_layers(model))
