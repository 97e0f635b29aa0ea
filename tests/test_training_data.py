"""Tests that data in every form of `fit` is read in the same batches."""

import keras
import numpy as np
import pytest
from keras import ops

from tf_gems import training_data
from tf_gems.training_data import read

X = np.arange(20.0, dtype="float32").reshape(10, 2)
Y = np.arange(10)


def joined(data):
    """Returns all examples of an epoch, in order, for each part of the data."""
    batches = list(data)
    return [
        np.concatenate([ops.convert_to_numpy(b[part]) for b in batches])
        for part in range(len(batches[0]))
    ]


def tensors(values):
    return ops.convert_to_tensor(values)


def torch_tensors(values):
    return pytest.importorskip("torch").tensor(values)


def jax_arrays(values):
    return pytest.importorskip("jax").numpy.asarray(values)


@pytest.mark.parametrize("form", [np.array, tensors, torch_tensors, jax_arrays])
@pytest.mark.parametrize("with_targets", [True, False])
def test_arrays_of_all_libraries(form, with_targets):
    y = form(Y) if with_targets else None
    data = read(form(X), y, batch_size=4, shuffle=False)
    assert [len(batch[0]) for batch in data] == [4, 4, 2] and len(data) == 3
    found = joined(data)
    np.testing.assert_array_equal(found[0], X)
    assert len(found) == 1 + with_targets
    if with_targets:
        np.testing.assert_array_equal(found[1], Y)


def test_pandas_is_read_as_in_fit():
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(X.astype("float64"), columns=["a", "b"])
    data = read(table, pandas.Series(Y), batch_size=10, shuffle=False)
    [(x, y)] = data
    assert x.dtype == "float32" and y.shape == (10, 1)
    np.testing.assert_array_equal(x, X)


def test_nested_inputs_and_targets_keep_their_structure():
    data = read({"a": X, "b": Y}, (Y, {"c": X}), batch_size=5, shuffle=False)
    x, y = next(iter(data))
    np.testing.assert_array_equal(x["b"], Y[:5])
    np.testing.assert_array_equal(y[1]["c"], X[:5])
    [(x,)] = read({"a": X, "b": Y}, batch_size=10, shuffle=False)
    np.testing.assert_array_equal(x["a"], X)


def test_list_of_arrays_is_batches_or_inputs():
    batches = list(read([X, X]))
    assert len(batches) == 2 and len(batches[0]) == 1
    inputs = [keras.Input((2,)), keras.Input((2,))]
    two = keras.Model(inputs, keras.layers.Add()(inputs))
    [(x,)] = read([X, -X], model=two, batch_size=10, shuffle=False)
    np.testing.assert_array_equal(x[1], -X)


def test_tuple_is_one_batch_without_batch_size():
    [(x, y)] = read((X, Y))
    assert len(x) == len(y) == 10
    assert len(list(read((X, Y), batch_size=5))) == 2


def test_order_depends_only_on_epoch():
    first, second = (read(X, Y, batch_size=4).source for _ in range(2))
    orders = []
    for epoch in (0, 1):
        first.set_epoch(epoch)
        orders.append(np.concatenate([y for _, y in first]))
        second.set_epoch(7)
        second.set_epoch(epoch)
        again = np.concatenate([y for _, y in second])
        np.testing.assert_array_equal(orders[-1], again)
        np.testing.assert_array_equal(np.sort(again), Y)
    assert (orders[0] != orders[1]).any()


def test_steps_repeat_and_stop_early():
    data = read(X, Y, batch_size=4, steps_per_epoch=5)
    _, y = joined(data)
    assert len(data) == 5 and len(y) == 20
    np.testing.assert_array_equal(np.sort(y[:10]), Y)
    np.testing.assert_array_equal(np.sort(y[10:]), Y)
    assert len(list(read([(X, Y)] * 3, steps_per_epoch=2))) == 2


def test_fit_uses_each_example_once():
    """The sums of the targets show that all examples were read."""
    inputs = keras.Input((2,))
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
    seen = []

    class Epoch(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            source.set_epoch(epoch)

        def on_epoch_end(self, epoch, logs=None):
            seen.append(logs["loss"])

    def loss(y, outputs):
        factor = 10.0 ** ops.cast(y < 3, "float32")
        return ops.cast(y, "float32") * factor + 0.0 * outputs

    model.compile("sgd", loss)
    data = read(X, Y[:, None], batch_size=5)
    source = data.source
    model.fit(epochs=2, verbose=0, callbacks=[Epoch()], **data.fit_arguments())
    expected = np.mean(Y * 10.0 ** (Y < 3))
    np.testing.assert_allclose(seen, expected, rtol=1e-5)


def test_validation_split_and_validation_data():
    data = read(X, Y, validation_split=0.3, shuffle=False)
    _, y = joined(data)
    np.testing.assert_array_equal(y, Y[:7])
    arguments = data.fit_arguments()
    _, y = arguments["validation_data"][0]
    np.testing.assert_array_equal(y, Y[7:])
    given = read([(X, Y)], validation_data=(X, Y), validation_freq=2)
    assert given.fit_arguments()["validation_freq"] == 2


@pytest.mark.parametrize("targets", [Y % 3, np.eye(3)[Y % 3]])
def test_class_weights_match_fit(targets):
    data = read(X, targets, batch_size=10, shuffle=False, class_weight={1: 5.0})
    [(_, _, weight)] = data
    np.testing.assert_array_equal(weight, np.where(Y % 3 == 1, 5.0, 1.0))


def test_sample_weights_follow_examples():
    data = read(X, Y, sample_weight=Y / 2.0, batch_size=3)
    _, y, weight = joined(data)
    np.testing.assert_array_equal(weight, y / 2.0)


def test_ragged_rows_and_strings():
    tf = pytest.importorskip("tensorflow")
    rows = tf.ragged.constant([[1], [2, 3], [4, 5, 6], [7]])
    data = read(rows, np.arange(4), batch_size=2, shuffle=False)
    (x, _), _ = data
    assert x.to_list() == [[1], [2, 3]]
    [(x,)] = read(np.array(["a", "b"]), batch_size=2, shuffle=False)
    assert x.dtype == tf.string and x.numpy().tolist() == [b"a", b"b"]


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: read(X, Y, epochs=3), "its own number.*epochs=3"),
        (lambda: read(X, Y, batch_sise=3), "Did you mean 'batch_size'"),
        (lambda: read(None, Y), "x=None, with `y`"),
        (lambda: read(X, Y[:5]), r"arrays of \[5, 10\] examples"),
        (lambda: read(X[:0], Y[:0]), "at least one"),
        (lambda: read(X, sample_weight=Y), "without y"),
        (lambda: read(iter([X]), sample_weight=Y), "`sample_weight` has no"),
        (lambda: read(iter([X]), validation_split=0.5), "`validation_split`"),
        (lambda: read(7), "data of type int"),
        (lambda: read((X, Y, Y, Y)), "a tuple of 4"),
        (lambda: read(X, [1, 2, 3]), "Convert lists of numbers"),
        (lambda: read(X, Y, validation_split=0.99), "on both sides"),
    ],
)
def test_incompatible_arguments_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_arguments_match_fit():
    import inspect

    known = inspect.signature(keras.Model.fit).parameters
    assert set(training_data.ARGUMENTS) <= set(known)


class Counted(keras.utils.PyDataset):
    """Provides `num_batches` as a property, as in newer Keras."""

    def __init__(self, count):
        super().__init__()
        self._count = count

    @property
    def num_batches(self):
        return self._count

    def __getitem__(self, index):
        return X[index : index + 1], Y[index : index + 1]


class Uncounted(keras.utils.PyDataset):
    def __getitem__(self, index):
        return X[:1], Y[:1]


def test_dataset_with_num_batches_property():
    data = read(Counted(3))
    assert len(data) == 3 == len(list(data)) and data.has_places
    assert not data.is_endless
    endless = read(Counted(None))
    assert endless.is_endless and not endless.has_places
    assert len(read(Counted(None), steps_per_epoch=2)) == 2
    with pytest.raises(TypeError):  # The error for data of unknown length.
        len(endless)
    with pytest.raises(ValueError, match="Uncounted, which has neither"):
        read(Uncounted())
