"""Trains a model with a fresh copy of its optimizer."""

import keras
from keras import ops

from tf_gems import training_data
from tf_gems import workers
from tf_gems.callbacks.backup import Backup
from tf_gems.callbacks.backup import random_states
from tf_gems.callbacks.set_epoch import SetEpoch
from tf_gems.device_data import DeviceData
from tf_gems.files import BACKUP
from tf_gems.files import remove_files
from tf_gems.optimizer_copy import copy_optimizer
from tf_gems.optimizers import ScoreOptimizer
from tf_gems.targets import check_directory
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

    The copy starts without momentum, and its schedule at step zero. It
    replaces the optimizer without `compile`, even after a change of phase.
    Random layers restart from their seeds, and data that has `set_epoch` from
    epoch 0, so the result does not depend on earlier training.

    Args:
        model: Keras model, compiled at some time.
        data: See `tf_gems.training_data.read`.
        epochs: Positive integer.
        learning_rate: Float: the peak of a cosine decay to zero within these
            epochs; or a Keras schedule; or `"auto"`: scores train with
            `tf_gems.optimizers.ScoreOptimizer`. Defaults to `None`: the
            learning rate or schedule of the copied optimizer.
        callbacks: Callbacks for `fit`.
        directory: Where every epoch is backed up. After a crash, the same call
            resumes from there. The backups are removed at the end, and so is
            the directory, unless it holds other files or existed before.
            Defaults to `None`.
        verbose: As for `fit`. Defaults to `0`.

    Returns:
        The `keras.callbacks.History` of `fit`.

    Raises:
        ValueError: If the model was never compiled, or a cosine decay is
            asked for on data of unknown length.
    """
    data = training_data.read(data, model=model)
    _refuse_untrainable(data, epochs)
    source = data.source
    order = [SetEpoch(source)] if hasattr(source, "set_epoch") else []
    # Callbacks of users, such as loggers, do not identify the training.
    own = [c for c in callbacks if type(c).__module__.startswith("tf_gems.")]
    belongs_to = [source, epochs, learning_rate, *own]
    backups = []
    if directory is not None:
        backups = [Backup(check_directory(directory), belongs_to)]
    was_there = backups and _is_of_someone_else(backups[0])
    renew_optimizer(model, learning_rate, data, epochs)
    for variable in random_states(model):
        seed, _ = ops.convert_to_numpy(variable)
        variable.assign([seed, 0])
    callbacks = [*callbacks, *order, *backups]
    if isinstance(source, DeviceData):
        verbose = 1 if verbose == "auto" else verbose
        history = source.fit(model, epochs, callbacks, verbose)
    else:
        history = model.fit(
            epochs=epochs,
            callbacks=callbacks,
            verbose=verbose,
            **data.fit_arguments(),
        )
    for backup in backups:
        remove_files(backup.directory, BACKUP, folder=not was_there)
    return history


def _is_of_someone_else(backup):
    """Whether a directory existed before this library wrote into it."""
    return backup.directory.is_dir() and not backup.paths


def clear_session(seed):
    """Forgets all models and begins from a seed, on the same devices.

    `keras.utils.clear_session` alone would reset the distribution.
    """
    distribution = keras.distribution.distribution()
    keras.utils.clear_session()
    keras.distribution.set_distribution(distribution)
    keras.utils.set_random_seed(seed)


def renew_optimizer(model, learning_rate, data, epochs):
    """Gives a model a fresh copy of its optimizer, and compiles it anew."""
    if model.optimizer is None:
        raise ValueError(
            "A model trains with the optimizer and the loss of `compile`. "
            f"Received: '{model.name}', which is not compiled. Call `compile` "
            "first."
        )
    if is_number(learning_rate):
        learning_rate = keras.optimizers.schedules.CosineDecay(
            learning_rate, epochs * _count_batches(data)
        )
    with workers.scope_of(model):
        model.optimizer = (
            _score_optimizer(model.optimizer)
            if learning_rate == "auto"
            else copy_optimizer(model.optimizer, learning_rate)
        )
    model.train_function = None
    model.compiled = True


def _score_optimizer(optimizer):
    """Returns an optimizer for scores, which scales a loss as the given one."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        return keras.optimizers.LossScaleOptimizer(ScoreOptimizer())
    return ScoreOptimizer()


def _refuse_untrainable(data, epochs):
    """Raises an error for data that ends before training does."""
    if data is None:
        raise ValueError(
            "This method requires data for training. Received: data=None. "
            "Pass the data as for `fit`: arrays `x` and `y`, or a data set "
            "of batches `(x, y)`."
        )
    if epochs > 1 and data.gives_batches_once and data.steps is None:
        raise ValueError(
            "Every epoch must be able to read the data again. Received: data "
            f"of type {type(data.source).__name__}, which yields each batch "
            f"only once, for {epochs} epochs. Pass `steps_per_epoch` with a "
            "generator that never ends, or a `keras.utils.PyDataset` or "
            "`tf.data.Dataset`."
        )


def _count_batches(data):
    try:
        return len(data)
    except TypeError as error:
        raise ValueError(
            "The decay of a learning rate requires a known number of steps. "
            f"Received: data of type {type(data).__name__}, whose length is "
            "unknown. Pass a "
            "`keras.optimizers.schedules.LearningRateSchedule`, or data with "
            "a length: "
            "`dataset.apply(tf.data.experimental.assert_cardinality(n))`."
        ) from error
