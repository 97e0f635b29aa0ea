"""Reads data in all forms that `fit` accepts."""

import itertools

import keras
import numpy as np

from tf_gems.array_batches import ArrayBatches
from tf_gems.array_batches import common_length
from tf_gems.array_batches import rows
from tf_gems.array_batches import to_rows
from tf_gems.device_data import DeviceData
from tf_gems.validation import check_choice
from tf_gems.validation import check_positive_integer

# Arguments of `keras.Model.fit` that say how data is read.
ARGUMENTS = (
    "sample_weight",
    "batch_size",
    "shuffle",
    "class_weight",
    "steps_per_epoch",
    "validation_data",
    "validation_split",
    "validation_batch_size",
    "validation_steps",
    "validation_freq",
)
_BATCH_SIZE = 32  # that of `fit`


class TrainingData:
    """Batches for training, and for methods that read some of them.

    Iterating yields the batches of an epoch as tuples `(x,)`, `(x, y)` or
    `(x, y, sample_weight)`. `len` is their number, where it is known.
    """

    def __init__(
        self,
        source,
        steps=None,
        class_weight=None,
        shuffle=False,
        validation=(),
    ):
        self.source = source
        self.steps = steps
        self.class_weight = class_weight
        self.shuffle = bool(shuffle)
        self.validation = dict(validation)

    def __len__(self):
        if self.steps is not None:
            return self.steps
        count = _num_batches(self.source) if is_indexed(self.source) else None
        return len(self.source) if count is None else count

    def __iter__(self):
        for batch in itertools.islice(_batches_of(self.source), self.steps):
            yield self._weighted(as_tuple(batch))

    def __getitem__(self, place):
        """Returns the batch at a place, if the source has places."""
        return self._weighted(as_tuple(self.source[place]))

    def _weighted(self, batch):
        if self.class_weight and len(batch) == 2:
            return (*batch, _weights(batch[1], self.class_weight))
        return batch

    @property
    def has_places(self):
        """Whether batches can be read by index, and their number is known."""
        return is_indexed(self.source) and _num_batches(self.source) is not None

    @property
    def is_endless(self):
        """Whether the data says of itself that it has no last batch."""
        if self.steps is not None:
            return False
        if is_indexed(self.source):
            return _num_batches(self.source) is None
        cardinality = getattr(self.source, "cardinality", None)  # of `tf.data`
        return cardinality is not None and int(cardinality()) == -1

    @property
    def gives_batches_once(self):
        """Whether each batch can be read only once, as from a generator."""
        return hasattr(self.source, "__next__")

    def fit_arguments(self):
        """Returns the arguments of `fit` for this data."""
        found = {
            "steps_per_epoch": self.steps,
            "class_weight": self.class_weight,
            **self.validation,
        }
        found = {k: v for k, v in found.items() if v is not None}
        return {"x": self.source, "shuffle": self.shuffle, **found}


class ListedBatches(keras.utils.PyDataset):
    """A list of batches, in order."""

    def __init__(self, batches):
        super().__init__()
        self._batches = batches

    def __len__(self):
        return len(self._batches)

    def __getitem__(self, index):
        return as_tuple(self._batches[index])


def read(x, y=None, model=None, **arguments):
    """Returns data in any form that `fit` accepts as `TrainingData`.

    Args:
        x: Data as for `fit`: arrays (NumPy, tensors of any backend, pandas),
            or a dict or tuple of them with `y`; a `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a `torch` loader or a generator. Also a
            list of batches; a tuple `(x, y)` or `(x, y, sample_weight)`, which
            is one batch unless `batch_size` is given; and
            `tf_gems.device_data.DeviceData`.
        y: Targets, if `x` is arrays. Defaults to `None`.
        model: Keras model, which determines whether a list of arrays is a list
            of batches or the inputs of one batch. Defaults to `None`: a list
            of batches.
        **arguments: Arguments of `fit` that are named in `ARGUMENTS`, with the
            same meaning and default. Arrays are shuffled in an order that
            depends only on the epoch.

    Returns:
        `TrainingData`, or `None` if `x` is `None`.

    Raises:
        ValueError: If an argument is unknown, or does not apply to the data.

    Example:

    >>> data = read(np.zeros((5, 2)), np.arange(5), batch_size=2)
    >>> len(data), len(next(iter(data)))
    (3, 2)
    """
    for name in arguments:
        if name in ("epochs", "initial_epoch"):
            raise ValueError(
                "A method trains for its own number of epochs, from the "
                f"first one. Received: {name}={arguments[name]!r}. Pass "
                "`epochs` to the method."
            )
        check_choice(name, "argument", ARGUMENTS)
    given = {k: v for k, v in arguments.items() if v is not None}
    if isinstance(x, TrainingData):
        return x
    if x is None:
        if y is not None:
            raise ValueError(
                "Targets require inputs. Received: x=None, with `y`. Pass "
                "the inputs as `x`."
            )
        return None
    if isinstance(x, str | bytes):
        raise ValueError(
            "Data must have a form that `fit` accepts. Received: "
            f"x={x!r:.100}. Pass arrays or a data set, not its name."
        )
    if _is_arrays(x, y, model, given):
        return _read_arrays(x, y, **given)
    source = x
    if isinstance(x, tuple):
        source = ListedBatches([as_tuple(x)])
    elif isinstance(x, list):
        source = ListedBatches(x)
    elif not is_indexed(x) and not hasattr(x, "__iter__"):
        raise ValueError(
            "Data must have a form that `fit` accepts. Received: data of "
            f"type {type(x).__name__}. Pass arrays `x` and `y`, a "
            "`tf.data.Dataset`, a `keras.utils.PyDataset` or a list of "
            "batches."
        )
    if is_indexed(source):
        _num_batches(source)
    _refuse_beside(x, y, given)
    return TrainingData(
        source,
        given.get("steps_per_epoch"),
        given.get("class_weight"),
        given.get("shuffle", False),
        _validation(given),
    )


def as_tuple(batch):
    """Returns a batch as `(x,)`, `(x, y)` or `(x, y, sample_weight)`."""
    if isinstance(batch, list):
        batch = tuple(batch)
    if not isinstance(batch, tuple):
        return (batch,)
    if not 1 <= len(batch) <= 3:
        raise ValueError(
            "A batch must be the inputs `x`, `(x, y)` or `(x, y, "
            f"sample_weight)`. Received: a tuple of {len(batch)}. Put several "
            "inputs into one tuple or dict."
        )
    return batch


def is_indexed(source):
    """Whether batches are read by their places, as of a `PyDataset`."""
    return isinstance(source, keras.utils.PyDataset)


def _num_batches(source):
    """Returns how many batches a `PyDataset` has; `None` without an end."""
    try:
        return source.num_batches
    except NotImplementedError as error:
        raise ValueError(
            "A `keras.utils.PyDataset` must have a number of batches. "
            f"Received: {type(source).__name__}, which has neither `__len__` "
            "nor a property `num_batches`. Add one of them; `num_batches` is "
            "`None` for data that never ends."
        ) from error


def _batches_of(source):
    if not is_indexed(source):
        return iter(source)
    count = _num_batches(source)
    places = itertools.count() if count is None else range(count)
    return (source[place] for place in places)


def _refuse_beside(x, y, given):
    """Raises an error for arguments that do not go with batches."""
    wrong = {"y", "sample_weight", "validation_split"}
    if isinstance(x, DeviceData):
        wrong = {"y", *ARGUMENTS}
    given = given if y is None else {**given, "y": y}
    wrong = [name for name in given if name in wrong]
    if wrong:
        raise ValueError(
            f"`{wrong[0]}` has no effect for data of type {type(x).__name__}, "
            f"which yields whole batches. Received: {wrong[0]} of type "
            f"{type(given[wrong[0]]).__name__}. Leave it out, or pass arrays "
            "`x` and `y`."
        )


def _is_arrays(x, y, model, given):
    """Whether `x` holds all examples, to be cut into batches."""
    if y is not None or "sample_weight" in given:
        return not hasattr(x, "element_spec") and all(
            map(_is_array, keras.tree.flatten(x))
        )
    if isinstance(x, tuple):
        return {"batch_size", "steps_per_epoch", "validation_split"} & set(
            given
        )
    if isinstance(x, list):
        network = getattr(model, "model", model)  # in a `SparseModel`
        inputs = getattr(network, "inputs", None) or ()
        # A batch of several inputs is not a single array.
        return len(inputs) == len(x) > 1 and all(map(_is_array, x))
    if isinstance(x, dict):
        return all(map(_is_array, keras.tree.flatten(x)))
    return _is_array(x)


def _is_array(x):
    typed = hasattr(x, "dtype") or hasattr(x, "dtypes")
    return (typed and hasattr(x, "shape")) or hasattr(x, "__array__")


def _read_arrays(
    x,
    y=None,
    sample_weight=None,
    batch_size=None,
    shuffle=True,
    class_weight=None,
    steps_per_epoch=None,
    validation_split=0.0,
    **validation,
):
    if y is None and isinstance(x, tuple):
        arrays = as_tuple(x)
    else:
        arrays = (x, y, sample_weight)
    if len(arrays) == 3 and arrays[1] is None and arrays[2] is not None:
        raise ValueError(
            "A sample weight requires a target. Received: sample_weight, "
            "without y. Pass `y`, or apply the weights in the loss of the "
            "model."
        )
    # Without what was left out; as for `fit`, tuples in place of lists.
    arrays = tuple(
        tuple(part) if isinstance(part, list) else part
        for part in arrays
        if part is not None
    )
    arrays = keras.tree.map_structure(to_rows, arrays)
    batch_size = check_positive_integer(batch_size or _BATCH_SIZE, "batch_size")
    size = common_length(arrays)
    if validation_split and "validation_data" not in validation:
        end = int(size * (1.0 - validation_split))
        if not 0 < end < size:
            raise ValueError(
                "`validation_split` must leave examples on both sides. "
                f"Received: validation_split={validation_split!r} of {size} "
                "examples."
            )
        arrays, held = (
            keras.tree.map_structure(lambda a, p=p: rows(a, p), arrays)
            for p in (np.arange(end), np.arange(end, size))
        )
        count = validation.pop("validation_batch_size", None) or batch_size
        validation["validation_data"] = ArrayBatches(held, count, False)
    else:
        validation.setdefault("validation_batch_size", batch_size)
    steps = steps_per_epoch
    if steps is not None:
        steps = check_positive_integer(steps, "steps_per_epoch")
    source = ArrayBatches(arrays, batch_size, shuffle, steps)
    return TrainingData(
        source, None, class_weight, validation=_validation(validation)
    )


def _validation(given):
    found = {k: v for k, v in given.items() if k.startswith("validation_")}
    return found if found.get("validation_data") is not None else {}


def _weights(targets, class_weight):
    """Returns the sample weights that `fit` makes of class weights."""
    targets = np.asarray(targets)
    if targets.ndim > 1 and targets.shape[-1] > 1:
        targets = np.argmax(targets, -1)
    labels = np.round(targets.reshape(len(targets))).astype(int)
    weights = [class_weight.get(int(label), 1.0) for label in labels]
    return np.array(weights, keras.config.floatx())
