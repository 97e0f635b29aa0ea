"""Trains a ticket and its randomized variants."""

import keras

from tf_gems.network import gems_of
from tf_gems.sanity.sanity_report import SanityReport
from tf_gems.sanity.variants import randomize
from tf_gems.sanity.variants import reinitialize
from tf_gems.sanity.variants import shuffle
from tf_gems.ticket import Ticket
from tf_gems.validation import check_function
from tf_gems.validation import check_integer
from tf_gems.validation import check_list
from tf_gems.validation import check_model
from tf_gems.validation import check_number
from tf_gems.validation import check_verbose


def check(
    ticket,
    fit,
    evaluate,
    seeds=(0, 1, 2),
    model=None,
    inverted=None,
    tolerance=0.02,
    verbose=0,
):
    """Checks whether the mask and the weights of a ticket matter.

    Trains the ticket and its shuffled, reinitialized and random variants once
    for every seed, see `tf_gems.sanity`.

    Args:
        ticket: `tf_gems.Ticket`.
        fit: Function of a ticket and a seed that applies the ticket to a
            network, compiles and trains it, and returns it. All other random
            numbers should depend on the seed.
        evaluate: Function from the network that `fit` returns to its accuracy
            on held-out data, a float in [0, 1].
        seeds: Integers, one for each run of a branch. Defaults to
            `(0, 1, 2)`.
        model: `SparseModel` or Keras model with the network of the ticket, for
            its initializers. It is not changed. Defaults to `None`: no variant
            with new weights is trained.
        inverted: Ticket of the method with inverted scores, which is trained
            too, see `tf_gems.methods.Inverted` and the argument `inverted` of
            `tf_gems.methods.GemMiner`. Defaults to `None`.
        tolerance: Float, the difference in accuracy that does not matter.
            Defaults to `0.02`.
        verbose: Whether to print a line for each run. Defaults to `0`.

    Returns:
        `tf_gems.sanity.SanityReport`.

    Raises:
        ValueError: If `fit` returns no model, or `evaluate` returns no
            accuracy. This is checked in the first run.

    Example:

    ```python
    def fit(ticket, seed):
        keras.utils.set_random_seed(seed)
        sparse = tf_gems.SparseModel(build())
        ticket.apply(sparse)
        sparse.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
        sparse.fit(train, epochs=20)
        return sparse

    def evaluate(model):
        return model.evaluate(test, return_dict=True)["accuracy"]

    print(tf_gems.sanity.check(ticket, fit, evaluate, model=sparse))
    ```
    """
    for name, value in (("ticket", ticket), ("inverted", inverted)):
        left_out = name == "inverted" and value is None
        if not isinstance(value, Ticket) and not left_out:
            raise ValueError(
                f"`{name}` must be a `tf_gems.Ticket`. Received: "
                f"{name}={value!r:.100}. Pass a ticket that a method found."
            )
    check_function(fit, "fit")
    check_function(evaluate, "evaluate")
    for seed in check_list(seeds, "seeds", "integers"):
        check_integer(seed, "seeds", 0, 2**32 - 1)
    check_number(tolerance, "tolerance", 0, 1)
    check_verbose(verbose)
    if model is not None:
        gems_of(check_model(model))
    branches = {
        "ticket": lambda seed: ticket,
        "shuffled": lambda seed: shuffle(ticket, model, seed=seed),
    }
    if model is not None:
        branches["reinitialized"] = lambda s: reinitialize(
            ticket, model, seed=s
        )
        branches["random"] = lambda s: randomize(ticket, model, seed=s)
    if inverted is not None:
        branches["inverted"] = lambda seed: inverted
    accuracies = {branch: [] for branch in branches}
    for seed in seeds:
        for branch, draw in branches.items():
            accuracy = _run(fit, evaluate, draw(seed), seed)
            accuracies[branch].append(accuracy)
            if verbose:
                print(f"{branch:<14} seed {seed}: {accuracy:.2%}", flush=True)
    return SanityReport(accuracies, tolerance)


def _run(fit, evaluate, ticket, seed):
    """Returns the accuracy of one run, or raises before others are lost."""
    model = fit(ticket, seed)
    if model is None or isinstance(model, keras.callbacks.History):
        raise ValueError(
            "`fit` must return the network that it trained. Received: "
            f"{type(model).__name__}. End it with `return model`."
        )
    found = evaluate(model)
    if isinstance(found, list | tuple | dict):
        raise ValueError(
            "`evaluate` must return an accuracy, a float in [0, 1]. "
            f"Received: {found!r}. Return one of these values, such as "
            '`model.evaluate(data, return_dict=True)["accuracy"]`.'
        )
    accuracy = float(found)
    if not 0 <= accuracy <= 1:  # a NaN is not either
        raise ValueError(
            "`evaluate` must return an accuracy, a float in [0, 1]. "
            f"Received: {accuracy!r}, for seed {seed}. If it is NaN, the "
            "training has diverged or the test data is empty: reduce the "
            "learning rate, or check the data."
        )
    return accuracy
