"""Gem-Miner's settings as a search space for KerasTuner.

```python
from tf_gems import tuning

tuner = keras_tuner.RandomSearch(
    tuning.GemMinerHyperModel(build, target_sparsity=0.98, epochs=20),
    objective="val_accuracy", max_trials=20, directory="tuning")
tuner.search(train, validation_data=val)
ticket = tuning.best_ticket(tuner)
```
"""

import math
from pathlib import Path

import keras

try:
    import keras_tuner
except ImportError as error:
    raise ImportError(
        "`tf_gems.tuning` needs KerasTuner: `pip install tf_gems[tuner]`."
    ) from error

from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.methods.gem_miner import GemMiner
from tf_gems.network import gems_of
from tf_gems.sparse_model import SparseModel
from tf_gems.ticket import Ticket
from tf_gems.training import renew_optimizer
from tf_gems.training import train
from tf_gems.validation import check_positive_integer
from tf_gems.validation import check_sparsity

_FILE = "ticket.gem"


class GemMinerHyperModel(keras_tuner.HyperModel):
    """Mines a network for one target with settings that a tuner chooses.

    A trial mines, fine-tunes if it is told to, and is judged by the metrics
    of the ticket on the validation data: before fine-tuning, or after. Both
    are reported, the former as `val_mined_...`. The ticket is saved in the
    directory of the trial, and mining that was interrupted goes on there.

    Args:
        build: Function without arguments that returns a compiled model: a
            `SparseModel`, or a Keras model that is wrapped in one.
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer, epochs of mining.
        finetuning_epochs: Integer. Defaults to `0`: the ticket is judged
            before any weight is trained.
        finetuning_learning_rate: As for `tf_gems.methods.Trained`. Defaults
            to `None`: that of the compiled optimizer.
        regularization: Pair of positive floats, the range of the penalty's
            weight, searched by its logarithm. Defaults to `(1e-6, 1e-3)`.
        freeze_period: Pair of integers, the range of epochs between freezes.
            Defaults to `None`: one to a fourth of the epochs.
        learning_rate: Pair of positive floats, the range of the peak learning
            rate of the scores, searched by its logarithm. Defaults to
            `(0.01, 1.0)`.
        name: String. Defaults to `None`.
        **kwargs: Arguments of `tf_gems.methods.GemMiner` that are not
            searched, such as `allocation`.

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        build,
        target_sparsity,
        epochs,
        finetuning_epochs=0,
        finetuning_learning_rate=None,
        regularization=(1e-6, 1e-3),
        freeze_period=None,
        learning_rate=(0.01, 1.0),
        name=None,
        **kwargs,
    ):
        super().__init__(name)
        self.build_network = build
        self.target_sparsity = check_sparsity(target_sparsity)
        self.epochs = check_positive_integer(epochs, "epochs")
        self.finetuning_epochs = finetuning_epochs
        self.finetuning_learning_rate = finetuning_learning_rate
        freeze_period = freeze_period or (1, max(1, epochs // 4))
        self.ranges = {
            "regularization": _check_range(regularization, "regularization"),
            "freeze_period": _check_range(freeze_period, "freeze_period"),
            "learning_rate": _check_range(learning_rate, "learning_rate"),
        }
        self.settings = kwargs

    def method(self, hp):
        """Returns the `GemMiner` of some hyperparameters.

        Args:
            hp: `keras_tuner.HyperParameters`.
        """
        rates = {
            name: hp.Float(name, *self.ranges[name], sampling="log")
            for name in ("regularization", "learning_rate")
        }
        period = hp.Int("freeze_period", *self.ranges["freeze_period"])
        return GemMiner(
            self.target_sparsity,
            self.epochs,
            freeze_period=period,
            **rates,
            **self.settings,
        )

    def build(self, hp):
        self.method(hp)  # tells the tuner what there is to search
        model = self.build_network()
        if find_gem_layers(model):
            return model
        sparse = SparseModel(model)
        if model.compiled:
            sparse.compile_from_config(model.get_compile_config())
        return sparse

    def fit(self, hp, model, data, validation_data, verbose=0, callbacks=()):
        """Mines, fine-tunes and evaluates; called by the tuner's `search`.

        Args:
            hp: `keras_tuner.HyperParameters`.
            model: What `build` returned.
            data: See `tf_gems.methods.Method.find`.
            validation_data: As for `evaluate`; or a tuple `(x, y)`.
            verbose: As for `fit`. Defaults to `0`.
            callbacks: Those of the tuner. They see one epoch, the last.

        Returns:
            Dict of metrics.
        """
        tuner, directory = _find_trial(callbacks)
        compiled = model.optimizer
        mining = directory and directory / "mining"
        ticket = self.method(hp).find(model, data, mining, verbose)
        ticket.apply(model)
        model.optimizer = compiled  # mining had a copy of it
        renew_optimizer(model, None, data, self.epochs)
        results = _evaluate(model, validation_data)
        if self.finetuning_epochs:
            mined = {f"val_mined_{k[4:]}": v for k, v in results.items()}
            train(
                model,
                data,
                self.finetuning_epochs,
                self.finetuning_learning_rate,
                verbose=verbose,
            )
            results = {**_evaluate(model, validation_data), **mined}
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
        container = keras.callbacks.CallbackList(callbacks, model=model)
        container.on_train_begin()
        container.on_epoch_end(0, results)
        container.on_train_end(results)
        return results


def best_ticket(tuner):
    """Returns the ticket of the best trial of a search.

    Args:
        tuner: The KerasTuner tuner that searched a `GemMinerHyperModel`.

    Returns:
        `tf_gems.Ticket`. It holds, as one that is loaded, the weights to
        start from, not those after fine-tuning; `tuner.get_best_models()`
        returns those.

    Raises:
        ValueError: If no trial has been finished.
    """
    trials = tuner.oracle.get_best_trials(1)
    if not trials:
        raise ValueError(
            "A search finds a ticket when a trial is finished. Received: "
            f"tuner of project '{tuner.project_name}', without any. Call "
            "`search` first."
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


def _evaluate(model, data):
    data = data if isinstance(data, tuple) else (data,)
    results = model.evaluate(*data, verbose=0, return_dict=True)
    return {f"val_{name}": float(value) for name, value in results.items()}


def _save_if_best(ticket, path, objective):
    """Saves a ticket, unless a trial of several runs found a better one."""
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
    low, high = pair
    if not 0 < low <= high:
        raise ValueError(
            f"`{name}` is a pair of positive numbers, the ends of its range. "
            f"Received: {name}={pair!r}."
        )
    return low, high
