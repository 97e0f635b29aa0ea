"""Methods x sparsities x seeds, on one model and one data pipeline."""

import hashlib
import json
from pathlib import Path

import keras

from tf_gems import methods as registry
from tf_gems.comparison.cell import CHECKS
from tf_gems.comparison.cell import Cell
from tf_gems.comparison.cell import Protocol
from tf_gems.comparison.comparison import Comparison
from tf_gems.files import share
from tf_gems.provenance import provenance
from tf_gems.validation import check_choice
from tf_gems.validation import check_positive_integer
from tf_gems.validation import check_sparsity


def compare(
    build,
    train,
    test,
    methods,
    sparsities,
    epochs,
    directory,
    optimizer,
    loss,
    learning_rate=None,
    metric="accuracy",
    seeds=(0, 1, 2),
    checks=(),
    dense=True,
    steps_per_execution=1,
    strategy=None,
    verbose=1,
):
    """Compares pruning methods at equal numbers of training epochs.

    Every cell (a method at a sparsity with a seed) gets a fresh model. The
    method finds its ticket, which may take epochs of training; fine-tuning of
    the ticket gets all epochs that are left of `epochs`, the same for every
    cell. So a method that trains nothing fine-tunes the longest.

    Finished cells lie in `directory` and are never run again; a cell that was
    killed goes on with its last epoch. Processes that run the same comparison,
    on several devices say, share its cells. Results depend on the settings
    and the seeds alone; keep one directory for one data set.

    Args:
        build: Function from a seed to a built Keras model. The weights it has
            are what methods start from; those that train scores draw signed
            constants in place of its kernels, see
            `tf_gems.methods.Method.kernel_initializer`.
        train: Data for `fit`, or a function from a seed to it.
        test: Data for `evaluate`.
        methods: List of names, or dict from names of your own to anything
            that `tf_gems.methods.get` takes; their sparsity is replaced. A
            function from a sparsity to a method is accepted as well.
        sparsities: List of floats in [0, 1), the fractions of zeros.
        epochs: Positive integer, of search and fine-tuning together.
        directory: Where cells and results are kept.
        optimizer: `keras.optimizers.Optimizer`, of which each training gets a
            fresh copy.
        loss: As for `compile`.
        learning_rate: Float, the peak of the cosine decay of fine-tuning.
            Defaults to `None`: the learning rate of the optimizer.
        metric: String, a metric of `compile`. Defaults to `"accuracy"`.
        seeds: Integers. Defaults to `(0, 1, 2)`.
        checks: Names among `"shuffled"`, `"reinitialized"` and `"random"`:
            further cells in which the ticket's mask, its weights, or both are
            randomised before fine-tuning, see `tf_gems.sanity`. Or a dict
            from a sparsity to such names. Defaults to none.
        dense: Whether the unpruned network is trained beside them. Defaults
            to `True`.
        steps_per_execution: As for `compile`. Defaults to `1`, which it is
            under a strategy.
        strategy: `tf.distribute.MirroredStrategy` in whose scope every model
            is made. Defaults to `None`: one device, or on JAX those that
            `keras.distribution.set_distribution` was told.
        verbose: `0` is silent, `1` shows progress by cell. Defaults to `1`.

    Returns:
        `tf_gems.Comparison`; `results.json` and `results.csv` lie in the
        directory.

    Raises:
        ValueError: If an argument is out of range, or a method's search
            leaves nothing of the epochs, or the strategy is one of several
            workers or only entered. Nothing has been run then.

    Example:

    ```python
    comparison = tf_gems.compare(
        build, train, test, ["snip", "synflow", "random"], [0.9, 0.98],
        epochs=10, directory="comparison",
        optimizer=keras.optimizers.SGD(0.1, momentum=0.9), loss=loss)
    print(comparison.render())
    comparison.draw("comparison")
    ```
    """
    protocol = Protocol(
        build,
        train,
        test,
        keras.optimizers.get(optimizer),
        loss,
        check_positive_integer(epochs, "epochs"),
        learning_rate,
        metric,
        steps_per_execution,
        Path(directory),
        strategy,
    )
    _refuse_other_scopes(strategy)
    protocol.refuse_empty_test()
    cells = _cells(protocol, methods, sparsities, seeds, checks, dense)
    bar = keras.utils.Progbar(len(cells), unit_name="cell", verbose=verbose)

    def run(cell):
        row = cell.row()
        bar.add(1)
        if verbose:
            print(f"  {_line(row)}", flush=True)
        return row

    rows = share(cells, lambda cell: cell.lock, run)
    comparison = Comparison(rows, protocol.settings(), provenance())
    comparison.save(directory)
    return comparison


def _refuse_other_scopes(strategy):
    """Every cell begins a new session, which ends the scope it is in."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if tf.distribute.has_strategy():
        raise ValueError(
            "A comparison enters the scope itself, for every model. Received: "
            f"a call within the scope of {_kind(tf.distribute.get_strategy())}."
            " Pass `strategy` instead."
        )
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            "Workers share the cells of a comparison, not each batch. "
            f"Received: strategy={_kind(strategy)}. Leave it out, and run the "
            "same comparison on every worker, in one directory."
        )


def _kind(strategy):
    return type(strategy).__name__


def _cells(protocol, methods, sparsities, seeds, checks, dense):
    """Returns all cells, or raises before any is run."""
    if not isinstance(methods, dict):
        methods = {_name(method): method for method in methods}
    if not isinstance(checks, dict):
        checks = {sparsity: checks for sparsity in sparsities}
    for name in [name for names in checks.values() for name in names]:
        check_choice(name, "checks", CHECKS)
    text = json.dumps(protocol.settings(), sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    found = []
    if dense:
        whole = registry.RandomPruning(0.0)
        found += [Cell(protocol, "dense", whole, seed, key) for seed in seeds]
    for sparsity in map(check_sparsity, sparsities):
        for name, method in methods.items():
            method = _at(method, sparsity)
            for seed in seeds:
                seeded = method
                if "seed" in method.get_config():
                    seeded = registry.get(method, seed=seed)
                cell = Cell(protocol, name, seeded, seed, key)
                _refuse_too_long(cell)
                found.append(cell)
                found += [
                    Cell(protocol, name, seeded, seed, key, check)
                    for check in checks.get(sparsity, ())
                ]
    return found


def _name(method):
    if isinstance(method, str):
        return method
    kinds = {kind: name for name, kind in registry.METHODS.items()}
    return kinds.get(type(method), type(method).__name__)


def _at(method, sparsity):
    if callable(method) and not isinstance(method, registry.Method):
        return method(sparsity)
    return registry.get(method, target_sparsity=sparsity)


def _refuse_too_long(cell):
    if cell.finetuning_epochs < 0:
        raise ValueError(
            "A method's search must fit into the epochs that all methods "
            f"get. Received: epochs={cell.protocol.epochs}, of which "
            f"'{cell.name}' takes {cell.method.epochs_of_search} at sparsity "
            f"{cell.method.target_sparsity:g}. Give it fewer epochs or "
            "rounds, or raise `epochs`."
        )


def _line(row):
    check = f" {row['check']}" if row["check"] else ""
    return (
        f"{row['method']}{check}, sparsity {row['sparsity']:.2%}, seed "
        f"{row['seed']}: {row['accuracy_before']:.2%} before, "
        f"{row['accuracy']:.2%} after fine-tuning"
    )
