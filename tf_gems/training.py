"""Training a model anew, with what it is compiled with."""

import contextlib

import keras
from keras import ops

from tf_gems.callbacks.backup import Backup
from tf_gems.callbacks.backup import random_states
from tf_gems.callbacks.set_epoch import SetEpoch
from tf_gems.device_data import DeviceData
from tf_gems.validation import is_number


def train(
    model,
    data,
    epochs,
    learning_rate=None,
    callbacks=(),
    directory=None,
    verbose=0,
):
    """Fits a compiled model with a fresh copy of its optimizer.

    The copy starts without momentum, and its schedule at step zero. It is in
    force at once, also after a switch of phase. Dropout begins with its seed,
    and data that can be told the epoch with the first, so that the outcome
    does not depend on what was trained before.

    Args:
        model: Keras model, compiled at some time.
        data: One batch as a tuple, a list of batches, what `fit` takes, or
            `tf_gems.device_data.DeviceData`.
        epochs: Positive integer.
        learning_rate: Float: the peak of a cosine decay to zero within these
            epochs; or a Keras schedule. Defaults to `None`: the learning rate
            or schedule of the copied optimizer.
        callbacks: Callbacks for `fit`.
        directory: Where every epoch is backed up, so that the same call goes
            on after a crash; removed in the end. Defaults to `None`.
        verbose: As for `fit`. Defaults to `0`.

    Returns:
        The `keras.callbacks.History` of `fit`.

    Raises:
        ValueError: If the model was never compiled, or a cosine decay is
            asked for on data of unknown length.
    """
    data = as_dataset(data)
    order = [SetEpoch(data)] if hasattr(data, "set_epoch") else []
    backups = [Backup(directory)] if directory else []
    renew_optimizer(model, learning_rate, data, epochs)
    for variable in random_states(model):
        seed, _ = ops.convert_to_numpy(variable)
        variable.assign([seed, 0])
    callbacks = [*callbacks, *order, *backups]
    if isinstance(data, DeviceData):
        history = data.fit(model, epochs, callbacks, verbose)
    else:
        history = model.fit(
            data,
            epochs=epochs,
            shuffle=False,  # data sets shuffle themselves
            callbacks=callbacks,
            verbose=verbose,
        )
    for backup in backups:
        backup.remove()
    return history


def clear_session(seed):
    """Forgets all models and begins from a seed, on the same devices.

    Keras would forget what `keras.distribution.set_distribution` was told.
    """
    distribution = keras.distribution.distribution()
    keras.utils.clear_session()
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(seed)


def renew_optimizer(model, learning_rate, data, epochs):
    """Gives a model a fresh copy of its optimizer, and compiles it anew."""
    if model.optimizer is None:
        raise ValueError(
            "A model trains with the optimizer and the loss that it is "
            f"compiled with. Received: '{model.name}', which is not compiled. "
            "Call `compile` first."
        )
    config = model.optimizer.get_config()
    if learning_rate is not None:
        if is_number(learning_rate):
            learning_rate = keras.optimizers.schedules.CosineDecay(
                learning_rate, epochs * _count_batches(data)
            )
        config["learning_rate"] = keras.optimizers.schedules.serialize(
            learning_rate
        )
    strategy = getattr(model, "distribute_strategy", None)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model.optimizer = _copy_optimizer(
            model.optimizer, config, learning_rate
        )
    model.train_function = None
    model.compiled = True


def _copy_optimizer(optimizer, config, learning_rate):
    """Returns an optimizer of the same class, which need not be registered."""
    inner = getattr(optimizer, "inner_optimizer", None)
    schedules = [
        getattr(part, "_learning_rate", None) for part in (optimizer, inner)
    ]
    parts = [optimizer, inner, learning_rate, *schedules]
    names = {type(part).__name__: type(part) for part in parts}
    try:
        with keras.saving.custom_object_scope(names):
            return type(optimizer).from_config(config)
    except Exception as error:
        raise ValueError(
            "Every training of a method begins with a fresh copy of the "
            "optimizer, by its config. Received: optimizer="
            f"{type(optimizer).__name__}, for which this fails: {error} Give "
            "it, and its schedule, `get_config` and `from_config`."
        ) from error


def as_dataset(data):
    """Makes what `fit` takes of one batch or of a list of batches."""
    if data is None:
        raise ValueError(
            "This method trains. Received: data=None. Pass a data set of "
            "batches `(x, y)`."
        )
    if isinstance(data, tuple):
        data = [data]
    return _Batches(data) if isinstance(data, list) else data


class _Batches(keras.utils.PyDataset):
    """A list of batches, in order."""

    def __init__(self, batches):
        super().__init__()
        self._batches = batches

    def __len__(self):
        return len(self._batches)

    def __getitem__(self, index):
        return self._batches[index]


def _count_batches(data):
    try:
        return len(data)
    except TypeError as error:
        raise ValueError(
            "A learning rate decays over a known number of steps. Received: "
            f"data of type {type(data).__name__}, whose length is unknown. "
            "Pass a `keras.optimizers.schedules.LearningRateSchedule`, or "
            "data with a length: `dataset.apply("
            "tf.data.experimental.assert_cardinality(n))`."
        ) from error
