"""Rounds of training and pruning, without rewinding the weights."""

import json
import math
from pathlib import Path

import keras
import numpy as np

from tf_gems.methods.method import present_weights
from tf_gems.methods.method import warn_at_minimum
from tf_gems.methods.trained import Trained
from tf_gems.methods.trained import alive_masks
from tf_gems.methods.trained import locked
from tf_gems.schedules import Geometric
from tf_gems.ticket import Ticket
from tf_gems.training import train
from tf_gems.validation import check_count_or_none
from tf_gems.validation import is_number


@keras.saving.register_keras_serializable(package="tf_gems")
class LearningRateRewinding(Trained):
    """Trains and prunes in rounds, and rewinds only the learning rate.

    Each of `N` rounds trains the weights for `epochs` epochs, with a fresh
    optimizer and schedule, and then keeps the largest `|w|` of those alive:
    after round `i` a fraction `d ** (i / N)`, with the target density `d`. All
    rounds prune the same fraction of the remaining weights, and the last round
    ends exactly at the target. The ticket contains the trained weights, with
    zeros in place of the pruned ones. By default, magnitudes are ranked
    relative to their layer, see `tf_gems.methods.Magnitude`; the paper ranks
    them together, `distribution="global"`.

    In `directory`, every finished round saves its ticket, `round_1.gem` and so
    on, and the epochs of the current round are backed up.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        epochs: Positive integer, the number of epochs of each round. Defaults
            to `150`.
        learning_rate: In each round, see `tf_gems.methods.Trained`. Defaults
            to `None`: that of the compiled optimizer.
        rate: Float in (0, 1), the approximate fraction of the alive weights
            that a round prunes. The number of rounds is `log(d) / log(1 -
            rate)`, rounded. Defaults to `0.2`.
        rounds: Positive integer, the number of rounds, instead of `rate`.
            Defaults to `None`: computed from `rate`.
        distribution: See `tf_gems.distributions.get`. Defaults to `"lamp"`.
        **kwargs: `pattern`, see `tf_gems.methods.Method`.

    Example:

    >>> method = LearningRateRewinding(0.9856, epochs=150)
    >>> method.rounds, method.epochs_of_search
    (19, 2850)

    Reference: Renda et al., 2020, "Comparing Rewinding and Fine-tuning in
    Neural Network Pruning", section 3.
    """

    phase = "finetuning"

    def __init__(
        self,
        target_sparsity,
        epochs=150,
        learning_rate=None,
        rate=0.2,
        rounds=None,
        distribution="lamp",
        **kwargs,
    ):
        super().__init__(
            target_sparsity,
            epochs,
            learning_rate,
            distribution=distribution,
            **kwargs,
        )
        if not is_number(rate) or not 0 < rate < 1:
            raise ValueError(
                "`rate` must be the fraction of the alive weights that each "
                f"round prunes, in (0, 1). Received: rate={rate!r}. The "
                "papers use 0.2."
            )
        self.rate = float(rate)
        self._rounds = check_count_or_none(rounds, "rounds")

    @property
    def rounds(self):
        """Number of rounds."""
        if self._rounds is not None:
            return self._rounds
        density = 1.0 - self.target_sparsity
        return max(1, round(math.log(density) / math.log(1.0 - self.rate)))

    @property
    def epochs_of_search(self):
        return self.rounds * self.epochs

    def rewind_point(self, directory):
        """Returns the `RewindPoint` of a new search; here `None`."""
        return None

    def find_ticket(self, model, data, directory, verbose, callbacks):
        self.prepare(model)
        self._rehearse(model)
        with locked(directory, model):
            directory = None if directory is None else Path(directory)
            return self._rounds_of(model, data, directory, verbose, callbacks)

    def _rounds_of(self, model, data, directory, verbose, callbacks):
        point = self.rewind_point(directory)
        ticket = Ticket.from_masks(model, alive_masks(model))
        for number in range(1, self.rounds + 1):
            file = directory and directory / f"round_{number}.gem"
            finished = bool(file) and file.exists()
            if finished:
                pruned = self._load(file)
            else:
                ticket.apply(model)
                rewind = [point] if point and number == 1 else []
                train(
                    model,
                    data,
                    self.epochs,
                    self.learning_rate,
                    [*rewind, *(callbacks or ())],
                    directory and directory / f"round_{number}",
                    verbose,
                )
                masks = self._prune(model, number, alive_masks(model))
                pruned = Ticket.from_masks(model, masks)
            pruned.apply(model)
            masks = alive_masks(model)
            if point:
                point.rewind(model)
            ticket = self._combine(model, masks, number)
            if file and not finished:
                directory.mkdir(parents=True, exist_ok=True)
                ticket.save(file)
        ticket.apply(model)
        warn_at_minimum(self.distribution, model, alive_masks(model))
        return ticket

    def _rehearse(self, model):
        """Prunes all rounds without training, so that errors come first."""
        masks = alive_masks(model)
        for number in range(1, self.rounds + 1):
            masks = self._prune(model, number, masks)
        self.ticket(model, masks)

    def _prune(self, model, number, alive):
        """Returns masks of the weights that a round leaves alive."""
        density = Geometric(1.0, 1.0 - self.target_sparsity)
        scores = [np.abs(w) for w in present_weights(model)]
        return self.keep(model, scores, density(number / self.rounds), alive)

    def _combine(self, model, masks, number):
        """Joins the masks of a round with the model's present weights."""
        if number == self.rounds:
            return self.ticket(model, masks)  # after a check of the shape
        metadata = {"method": keras.saving.serialize_keras_object(self)}
        return Ticket.from_masks(model, masks, metadata)

    def _load(self, file):
        """Reads the ticket of a finished round of this same search."""
        ticket = Ticket.load(file)
        ours = keras.saving.serialize_keras_object(self)
        theirs = ticket.metadata.get("method")
        if json.dumps(ours, sort_keys=True) != json.dumps(
            theirs, sort_keys=True
        ):
            raise ValueError(
                "A directory belongs to one search. Received: "
                f"'{file}', which was written by {theirs}, for {ours}. "
                "Choose another directory, or remove this one."
            )
        return ticket

    def get_config(self):
        return {**super().get_config(), "rounds": self._rounds}
