"""Tunes the settings of Gem-Miner with KerasTuner.

```python
from tf_gems import tuning

tuner = keras_tuner.RandomSearch(
    tuning.GemMinerHyperModel(build, target_sparsity=0.98, epochs=20),
    objective="val_accuracy", max_trials=20, directory="tuning")
tuner.search(x, y, validation_data=(x_val, y_val))
ticket = tuning.best_ticket(tuner)
```
"""

import inspect
import math
import weakref
from pathlib import Path

import keras
from keras import ops

try:
    import keras_tuner
except ImportError as error:
    raise ImportError(
        "`tf_gems.tuning` requires KerasTuner: `pip install tf_gems[tuner]`."
    ) from error

from tf_gems import training_data
from tf_gems.files import remove_leftovers
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.methods.gem_miner import GemMiner
from tf_gems.network import gems_of
from tf_gems.network import network_weights
from tf_gems.optimizer_copy import copy_optimizer
from tf_gems.sparse_model import SparseModel
from tf_gems.ticket import Ticket
from tf_gems.training import renew_optimizer
from tf_gems.training import train
from tf_gems.validation import check_count_or_none
from tf_gems.validation import check_function
from tf_gems.validation import check_integer
from tf_gems.validation import check_number
from tf_gems.validation import check_positive_integer
from tf_gems.validation import check_sparsity
from tf_gems.validation import is_number

_FILE = "ticket.gem"


class GemMinerHyperModel(keras_tuner.HyperModel):
    """Mines a network to one target, with settings that a tuner chooses.

    A trial mines, and fine-tunes if `finetuning_epochs` is given. Its result is
    the metrics of the ticket on the validation data, before or after
    fine-tuning. Both are reported, the former as `val_mined_...`, together
    with the metrics of the last epoch on the training data. The ticket is saved
    in the directory of the trial, where interrupted mining resumes.

    `search` accepts the arguments of `fit`. Its `epochs` are those of mining.
    With `keras_tuner.Hyperband` they are those of the bracket, at least two,
    and every trial mines from the initial weights of the network, because
    mining for a few epochs cannot be continued to a larger number. Callbacks
    of `search` are used for mining and fine-tuning, except `EarlyStopping`,
    which is used only for fine-tuning, because mining that is stopped early
    misses its target.

    Args:
        build: Function that returns a compiled model: a `SparseModel`, or a
            Keras model, which is then wrapped. If the function takes an
            argument, it is called with the `keras_tuner.HyperParameters`, and
            can define further hyperparameters.
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer, epochs of mining. Defaults to `None`. The
            `epochs` of `search` take precedence.
        finetuning_epochs: Integer. Defaults to `0`: the ticket is evaluated
            before any weight is trained.
        finetuning_learning_rate: As for `tf_gems.methods.Trained`. Defaults
            to `None`: that of the compiled optimizer.
        regularization: Pair of positive floats, the range of the weight of the
            penalty, searched on a logarithmic scale. Defaults to `(1e-6,
            1e-3)`.
        freeze_period: Pair of integers, the range of epochs between freezes,
            at most half of the epochs. Defaults to `None`: one to a fourth of
            the epochs.
        learning_rate: Pair of positive floats, the range of the peak learning
            rate of the scores, searched on a logarithmic scale. Defaults to
            `(0.01, 1.0)`.
        name: String. Defaults to `None`.
        **kwargs: Arguments of `tf_gems.methods.GemMiner` that are not
            searched, such as `distribution`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    ```python
    tuner = keras_tuner.Hyperband(
        tuning.GemMinerHyperModel(build, target_sparsity=0.98),
        objective="val_accuracy", max_epochs=50, directory="tuning")
    tuner.search(x, y, validation_data=(x_val, y_val), batch_size=128)
    ```
    """

    def __init__(
        self,
        build,
        target_sparsity,
        epochs=None,
        finetuning_epochs=0,
        finetuning_learning_rate=None,
        regularization=(1e-6, 1e-3),
        freeze_period=None,
        learning_rate=(0.01, 1.0),
        name=None,
        **kwargs,
    ):
        super().__init__(name)
        self.build_network = check_function(build, "build")
        self.target_sparsity = check_sparsity(target_sparsity)
        self.epochs = check_count_or_none(epochs, "epochs")
        self.finetuning_epochs = check_integer(
            finetuning_epochs, "finetuning_epochs"
        )
        if finetuning_learning_rate is not None:
            schedule = keras.optimizers.schedules.LearningRateSchedule
            if not isinstance(finetuning_learning_rate, schedule):
                check_number(
                    finetuning_learning_rate, "finetuning_learning_rate", 0
                )
        self.finetuning_learning_rate = finetuning_learning_rate
        if freeze_period is None:
            freeze_period = 1, max(1, (epochs or 20) // 4)
        for period in _check_range(freeze_period, "freeze_period"):
            check_positive_integer(period, "freeze_period")
        self.ranges = {
            "regularization": _check_range(regularization, "regularization"),
            "freeze_period": tuple(freeze_period),
            "learning_rate": _check_range(learning_rate, "learning_rate"),
        }
        self.settings = kwargs
        self._first_weights = weakref.WeakKeyDictionary()

    def method(self, hp, epochs=None):
        """Returns the `GemMiner` for given hyperparameters.

        Args:
            hp: `keras_tuner.HyperParameters`.
            epochs: Positive integer. Defaults to `None`: those of this
                object.
        """
        epochs = epochs or self.epochs
        if epochs is None:
            raise keras_tuner.errors.FatalValueError(
                "Mining requires a number of epochs. Received: epochs=None. "
                "Pass `epochs` to `search` or to `GemMinerHyperModel`."
            )
        settings = self._choose(hp)
        settings["freeze_period"] = min(
            settings["freeze_period"], max(1, epochs // 2)
        )
        return GemMiner(
            self.target_sparsity, epochs, **settings, **self.settings
        )

    def _choose(self, hp):
        """Returns the settings that the tuner chooses."""
        rates = {
            name: hp.Float(name, *self.ranges[name], sampling="log")
            for name in ("regularization", "learning_rate")
        }
        period = hp.Int("freeze_period", *self.ranges["freeze_period"])
        return {"freeze_period": period, **rates}

    def build(self, hp):
        self._choose(hp)  # tells the tuner what there is to search
        takes_hp = bool(inspect.signature(self.build_network).parameters)
        model = self.build_network(*([hp] if takes_hp else []))
        if not find_gem_layers(model):
            sparse = SparseModel(model)
            if model.compiled:
                _compile_alike(sparse, model)
            model = sparse
        # Hyperband puts the weights of another trial in their place.
        self._first_weights[model] = [
            ops.convert_to_numpy(ops.copy(v)) for v in network_weights(model)
        ]
        return model

    def fit(
        self,
        hp,
        model,
        x=None,
        y=None,
        epochs=None,
        initial_epoch=0,
        verbose="auto",
        callbacks=None,
        **arguments,
    ):
        """Mines, fine-tunes and evaluates. `search` of the tuner calls this.

        Args:
            hp: `keras_tuner.HyperParameters`.
            model: The model that `build` returned.
            x: See `tf_gems.methods.Method.find`.
            y: See `tf_gems.methods.Method.find`.
            epochs: Positive integer, epochs of mining. Defaults to `None`:
                those of this object.
            initial_epoch: Ignored, because every trial mines from the
                beginning.
            verbose: As for `fit`. Defaults to `"auto"`.
            callbacks: Keras callbacks, including those of the tuner, which are
                called for one epoch, the last.
            **arguments: Arguments of `fit` for its data, among them
                `validation_data` or `validation_split`.

        Returns:
            Dict of metrics.
        """
        callbacks = list(callbacks or ())
        ours = [c for c in callbacks if _is_of_tuner(c)]
        users = [c for c in callbacks if not _is_of_tuner(c)]
        tuner, directory = _find_trial(ours)
        data = training_data.read(x, y, model, **arguments)
        _refuse_no_validation(data, tuner)
        if "tuner/epochs" in hp.values:  # Hyperband's, of one at least
            epochs = max(2, epochs or hp.values["tuner/epochs"])
        first = self._first_weights.get(model, ())
        for variable, value in zip(network_weights(model), first, strict=False):
            variable.assign(value)

        compiled = model.optimizer
        history = keras.callbacks.History()
        stopping = keras.callbacks.EarlyStopping
        method = self.method(hp, epochs)
        ticket = method.find(
            model,
            data,
            directory=directory and directory / "mining",
            verbose=verbose,
            callbacks=[
                *(c for c in users if not isinstance(c, stopping)),
                history,
            ],
        )
        ticket.apply(model)
        model.optimizer = compiled  # mining had a copy of it
        renew_optimizer(model, None, data, method.epochs)
        results = _evaluate(model, data)
        if self.finetuning_epochs:
            mined = {f"val_mined_{k[4:]}": v for k, v in results.items()}
            history = train(
                model,
                data,
                self.finetuning_epochs,
                self.finetuning_learning_rate,
                users,
                verbose=verbose,
            )
            results = {**_evaluate(model, data), **mined}
        last = {k: float(v[-1]) for k, v in history.history.items() if v}
        last = {k: v for k, v in last.items() if not k.startswith("val_")}
        results = {**last, **results}
        # JSON has no NaN: the results of a trial that diverged are null.
        ticket.metadata["results"] = {
            name: value if math.isfinite(value) else None
            for name, value in results.items()
        }
        if tuner:
            _save_if_best(ticket, directory / _FILE, tuner.oracle.objective)
        # `get_best_models` loads what the callbacks save into a model that is
        # built anew, and thus mining. The scores of a ticket are its masks.
        for gem in gems_of(model):
            gem.set_phase("mining")
        container = keras.callbacks.CallbackList(ours, model=model)
        container.on_train_begin()
        container.on_epoch_end(0, results)
        container.on_train_end(results)
        return results


def best_ticket(tuner):
    """Returns the ticket of the best trial of a search.

    Args:
        tuner: The KerasTuner tuner that searched a `GemMinerHyperModel`.

    Returns:
        `tf_gems.Ticket`, as loaded from a file. It contains the initial
        weights; `tuner.get_best_models()` returns the fine-tuned weights.

    Raises:
        ValueError: If no trial has been finished.
    """
    if not isinstance(tuner, keras_tuner.Tuner):
        raise ValueError(
            "`tuner` must be a tuner of KerasTuner. Received: "
            f"tuner={tuner!r:.100}. Pass the tuner whose `search` has ended."
        )
    trials = tuner.oracle.get_best_trials(1)
    # KerasTuner lists those that failed where none has a result.
    if not trials or trials[0].status != "COMPLETED":
        errors = [(trial.message or "").splitlines() for trial in trials]
        failed = "".join(f"; the first ended with {e[-1]}" for e in errors if e)
        raise ValueError(
            "A search must have a finished trial. Received: tuner of project "
            f"'{tuner.project_name}', without any{failed}. Call `search` "
            "first, or again after the error is fixed."
        )
    directory = Path(tuner.get_trial_dir(trials[0].trial_id))
    return Ticket.load(directory / _FILE)


def _find_trial(callbacks):
    """Returns the tuner and the directory of its trial, or `None` twice."""
    for callback in callbacks:
        tuner = getattr(callback, "tuner", None)
        if isinstance(tuner, keras_tuner.Tuner):
            return tuner, Path(tuner.get_trial_dir(callback.trial.trial_id))
    return None, None


def _is_of_tuner(callback):
    return type(callback).__module__.startswith("keras_tuner.")


def _refuse_no_validation(data, tuner):
    """Stops a search whose objective no trial could report."""
    if data is None:
        raise keras_tuner.errors.FatalValueError(
            "Mining requires data. Received: x=None. Pass the data to "
            "`search` as to `fit`."
        )
    objective = getattr(getattr(tuner, "oracle", None), "objective", None)
    names = getattr(objective, "objectives", [objective])
    names = [o.name for o in names if o is not None]
    wanted = [name for name in names if name.startswith("val_")]
    if wanted and not data.validation:
        raise keras_tuner.errors.FatalValueError(
            "An objective on validation data requires such data. Received: "
            f"objective='{wanted[0]}', and neither `validation_data` nor "
            "`validation_split`. Pass one of them to `search`."
        )


def _compile_alike(sparse, model):
    """Compiles a model with what another one was compiled with.

    Keras keeps the arguments themselves in `_compile_config.config`;
    `compile_from_config` would need every class to be registered.
    """
    arguments = dict(model._compile_config.config)
    arguments["optimizer"] = copy_optimizer(model.optimizer)
    sparse.compile(**arguments)


def _evaluate(model, data):
    """Returns the metrics on the validation data, empty without."""
    if not data.validation:
        return {}
    given = data.validation["validation_data"]
    parts = tuple(given) if isinstance(given, tuple | list) else (given,)
    names = ("x", "y", "sample_weight")
    arguments = dict(zip(names, parts, strict=False))
    if len(parts) > 1:
        arguments["batch_size"] = data.validation.get("validation_batch_size")
    results = model.evaluate(
        **arguments,
        steps=data.validation.get("validation_steps"),
        verbose=0,
        return_dict=True,
    )
    return {f"val_{name}": float(value) for name, value in results.items()}


def _save_if_best(ticket, path, objective):
    """Saves a ticket, unless a trial of several runs found a better one."""
    remove_leftovers(path.parent, path.name)  # a trial has one process
    found = objective.get_value(ticket.metadata["results"])
    if path.exists():
        before = Ticket.load(path).metadata["results"]
        before = objective.get_value(before)
        if found is None or before is not None:
            if found is None or not objective.better_than(found, before):
                return
    ticket.save(path)


def _check_range(pair, name):
    """Returns a pair of positive numbers, the second at least the first."""
    if (
        not isinstance(pair, list | tuple)
        or len(pair) != 2
        or not all(map(is_number, pair))
        or not 0 < pair[0] <= pair[1]
    ):
        raise ValueError(
            f"`{name}` must be a pair of positive numbers, the ends of its "
            f"range. Received: {name}={pair!r:.100}. Pass a pair such as "
            "(0.01, 1.0)."
        )
    return tuple(pair)
