"""Methods x sparsities x seeds, on one model and one data pipeline."""

import dataclasses
import warnings
from pathlib import Path

import keras

from tf_gems import _keras
from tf_gems import methods as registry
from tf_gems import training_data
from tf_gems.comparison.cell import CHECKS
from tf_gems.comparison.cell import RECORDED
from tf_gems.comparison.cell import Cell
from tf_gems.comparison.cell import Protocol
from tf_gems.comparison.comparison import Comparison
from tf_gems.comparison.comparison import refuse_others
from tf_gems.comparison.executors import check_executor
from tf_gems.comparison.executors import run_on
from tf_gems.files import read_record
from tf_gems.files import share
from tf_gems.fingerprint.values import describe
from tf_gems.fingerprint.values import digest
from tf_gems.provenance import provenance
from tf_gems.registry import arguments_of
from tf_gems.text import printable
from tf_gems.validation import check_bool
from tf_gems.validation import check_choice
from tf_gems.validation import check_function
from tf_gems.validation import check_integer
from tf_gems.validation import check_learning_rate
from tf_gems.validation import check_list
from tf_gems.validation import check_positive_integer
from tf_gems.validation import check_sparsity
from tf_gems.validation import check_verbose
from tf_gems.validation import is_function


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
    executor=None,
    verbose=1,
) -> Comparison:
    """Compares pruning methods at equal numbers of training epochs.

    Every cell (a method at a sparsity with a seed) gets a new model. The
    method finds its ticket, which may take epochs of training. The remaining
    epochs fine-tune the ticket. The total number, `epochs`, is the same for
    every cell, so a method that does not train has the longest fine-tuning.

    Finished cells are saved in `directory` and are not run again. An
    interrupted cell resumes at its last epoch. Processes that run the same
    comparison, for example on several devices, share its cells. With an
    `executor`, its workers run the cells.

    A finished cell is reused only if everything that its results depend on is
    the same: the layers and initial weights of the network, the data, the
    method, the optimizer, the loss, the metric, the epochs and the backend.
    Functions and classes are compared by their source and by the objects that
    they use, arrays by their contents, and other data by a sample, see
    `tf_gems.fingerprint.data.describe_data`. If the directory contains cells
    of the same name that differ, a warning names the differences. These cells
    are kept but not used.

    A cell whose training diverges is marked and excluded from means.

    Args:
        build: Function from a seed to a built Keras model. Methods start from
            its weights. Methods that train scores reinitialize its kernels
            with signed constants, see
            `tf_gems.methods.Method.kernel_initializer`.
        train: Data for `fit`: a data set of batches, a list of batches, or one
            batch as a tuple `(x, y)`; or a function from a seed to such data.
        test: Data for `evaluate`.
        methods: List of names of methods, or dict from your own names to
            anything that `tf_gems.methods.get` accepts. Their sparsity is
            replaced. A function from a sparsity to a method is accepted too.
        sparsities: List of floats in [0, 1), the fractions of zeros.
        epochs: Positive integer, the number of epochs of search and
            fine-tuning together.
        directory: Directory for cells and results, either a new one or one
            that an earlier call wrote.
        optimizer: `keras.optimizers.Optimizer`. Each training gets a new copy.
        loss: As for `compile`.
        learning_rate: Float, the peak of the cosine decay of fine-tuning.
            Defaults to `None`: the learning rate of the optimizer.
        metric: A metric for `compile` that is to be maximized, with 1 as the
            best value: a string, a function or a `keras.metrics.Metric`.
            Defaults to `"accuracy"`.
        seeds: Integers. Defaults to `(0, 1, 2)`.
        checks: Names among `"shuffled"`, `"reinitialized"` and `"random"`:
            further cells in which the ticket's mask, its weights, or both are
            randomized before fine-tuning, see `tf_gems.sanity`. Or a dict
            from a sparsity to such names. Defaults to none.
        dense: Whether to train the unpruned network too. Defaults to `True`.
        steps_per_execution: As for `compile`. It is always 1 with a strategy.
            Defaults to `1`.
        strategy: `tf.distribute.MirroredStrategy` in whose scope every model
            is created. Defaults to `None`: one device, or on JAX those of
            `keras.distribution.set_distribution`.
        executor: `concurrent.futures.Executor` whose workers run the cells.
            Cells that need the same ticket run in one worker. Workers receive
            the other arguments by pickling and must see the same directory.
            Threads and forked processes raise an error: pass
            `ProcessPoolExecutor(2, mp_context=get_context("spawn"))`, or the
            executor of loky, Dask or MPI. The executor is not shut down.
            Defaults to `None`: this process runs the cells.
        verbose: `0` is silent, `1` shows the progress by cell. Defaults to
            `1`.

    Returns:
        `tf_gems.Comparison`. `results.json` and `results.csv` are written to
        the directory.

    Raises:
        FileExistsError: If the directory contains results of another program.
        ValueError: If an argument is out of range, the search of a method
            takes all epochs, the strategy has several workers or its scope was
            entered outside, the data is empty or has NaN targets, an object
            that the cells depend on cannot be identified by its contents, or
            the workers of the executor cannot run cells. No cell has been run
            in these cases.

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
    refuse_others(directory)
    check_function(build, "build")
    _check_loss(loss)
    _check_metric(metric)
    if strategy is not None and not hasattr(strategy, "scope"):
        raise ValueError(
            "`strategy` must be a strategy of `tf.distribute`. Received: "
            f"strategy={strategy!r:.100}. Leave it out for one device."
        )
    _check_batches(test, "test")
    if not is_function(train):
        _check_batches(train, "train")
    for sparsity in check_list(sparsities, "sparsities", "fractions of zeros"):
        check_sparsity(sparsity, "sparsities")
    for seed in check_list(seeds, "seeds", "integers"):
        check_integer(seed, "seeds", 0, 2**32 - 2)
    check_bool(dense, "dense")
    check_verbose(verbose)
    check_learning_rate(learning_rate)
    protocol = Protocol(
        build,
        train,
        test,
        _optimizer(optimizer),
        loss,
        check_positive_integer(epochs, "epochs"),
        learning_rate,
        metric,
        check_positive_integer(steps_per_execution, "steps_per_execution"),
        Path(directory).absolute(),  # workers may be elsewhere
        strategy,
    )
    _refuse_other_scopes(strategy)
    check_executor(executor, strategy)
    cells = _cells(protocol, methods, sparsities, seeds, checks, dense)
    _warn_of_others(cells)
    bar = keras.utils.Progbar(len(cells), unit_name="cell", verbose=verbose)

    def report(row):
        bar.add(1)
        if verbose:
            print(f"  {_line(row)}", flush=True)
        return row

    if executor is None:
        rows = share(cells, lambda cell: cell.lock, lambda c: report(c.row()))
    else:
        rows = run_on(executor, cells, report)
    comparison = Comparison(rows, protocol.settings(), provenance())
    comparison.save(directory)
    return comparison


def _optimizer(identifier):
    """Returns the optimizer of an identifier, or raises an error."""
    try:
        found = keras.optimizers.get(identifier)
    except (KeyError, TypeError, ValueError):
        found = None
    if found is None:
        raise ValueError(
            "`optimizer` must be a Keras optimizer. Received: "
            f"optimizer={identifier!r:.100}. Pass an object such as "
            "`keras.optimizers.SGD(0.1)`, or its name."
        )
    return found


def _check_loss(loss):
    """Raises an error unless Keras finds a loss, or one for each output."""
    losses = [loss]
    if isinstance(loss, dict | list | tuple):
        losses = list(loss.values() if isinstance(loss, dict) else loss)
    try:
        found = [keras.losses.get(x) for x in losses]
    except (TypeError, ValueError):
        found = []
    if not any(x is not None for x in found):
        raise ValueError(
            f"`loss` must be a Keras loss. Received: loss={loss!r:.100}. Pass "
            "an object such as `keras.losses.MeanSquaredError()`, its name, "
            "or a function."
        )


def _check_metric(metric):
    """Raises an error unless a metric is one of Keras, or a function."""
    found = metric
    known = isinstance(metric, keras.metrics.Metric)
    if isinstance(metric, str) and metric:
        try:
            found = keras.metrics.get(metric)
            known = found is not None
        except (TypeError, ValueError):  # some need arguments
            known = metric in ("acc", "crossentropy", "ce")
    elif not known:
        known = is_function(metric) and not isinstance(metric, type)
    if not known:
        raise ValueError(
            "`metric` must be a Keras metric. Received: "
            f"metric={metric!r:.100}. Pass a name such as 'accuracy', an "
            "object or a function."
        )
    is_loss = getattr(found, "__module__", "").startswith("keras.src.losses.")
    is_loss = is_loss or metric in ("crossentropy", "ce")
    if is_loss or _keras.is_lower_better(found):
        raise ValueError(
            "Methods are ranked by a metric that is to be maximized, with 1 "
            f"as the best value. Received: metric={metric!r:.100}, which is "
            "to be minimized. Pass a metric such as "
            "`keras.metrics.R2Score()`, or a function that returns 1 - "
            "error."
        )


def _check_batches(data, name):
    """Raises an error unless data yields inputs with targets."""
    found = training_data.read(data)
    batch = None if found is None else next(iter(found), ())
    if batch is not None and not batch:
        return  # `describe_data` raises an error for empty data
    if batch is None or len(batch) < 2 or batch[1] is None:
        raise ValueError(
            f"`{name}` must yield batches of inputs and targets. Received: "
            f"{name} of type {type(data).__name__}, without targets. Pass a "
            "data set, a list of batches, or one batch as a tuple `(x, y)`."
        )


def _refuse_other_scopes(strategy):
    """Raises an error within a scope, which the session of a cell would end."""
    if keras.backend.backend() != "tensorflow":
        return
    import tensorflow as tf

    if tf.distribute.has_strategy():
        raise ValueError(
            "`compare` enters the scope of a strategy itself, for every "
            "model. Received: a call within the scope of "
            f"{_kind(tf.distribute.get_strategy())}. Pass `strategy` instead."
        )
    if isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        raise ValueError(
            "Workers share the cells of a comparison, not each batch. "
            f"Received: strategy={_kind(strategy)}. Leave it out, and run the "
            "same comparison with the same directory on every worker."
        )


def _kind(strategy):
    return type(strategy).__name__


def _cells(protocol, methods, sparsities, seeds, checks, dense):
    """Returns all cells, or raises before any is run."""
    if not isinstance(methods, dict) or not methods:
        check_list(methods, "methods", "names of methods")
        methods = {_name(method): method for method in methods}
    if not isinstance(checks, dict | list | tuple):
        check_list(checks, "checks", "names of checks")
    if not isinstance(checks, dict):
        checks = {sparsity: checks for sparsity in sparsities}
    for name in [name for names in checks.values() for name in names]:
        check_choice(name, "checks", CHECKS)
    found = []
    if dense:
        whole = registry.RandomPruning(0.0)
        found += [Cell(protocol, "dense", whole, seed, {}) for seed in seeds]
    for sparsity in map(check_sparsity, sparsities):
        for name, method in methods.items():
            method = _at(method, sparsity)
            for seed in seeds:
                seeded = method
                if "seed" in arguments_of(method):
                    seeded = registry.get(method, seed=seed)
                cell = Cell(protocol, name, seeded, seed, {})
                _refuse_too_long(cell)
                found.append(cell)
                found += [
                    Cell(protocol, name, seeded, seed, {}, check)
                    for check in checks.get(sparsity, ())
                ]
    # After all that is refused at once: this reads the data.
    shared = protocol.key()
    of_seeds = {seed: protocol.key_of_seed(seed) for seed in seeds}
    return [
        dataclasses.replace(
            cell,
            key={
                **shared,
                **of_seeds[cell.seed],
                "method": digest(describe(cell.method)),
            },
        )
        for cell in found
    ]


def _warn_of_others(cells):
    """Warns of cells in the directory that differ from the requested ones."""
    missing = {
        (*cell.place, cell.check): cell
        for cell in cells
        if not cell.path.exists()
    }
    parts, count = {}, 0
    directory = cells[0].protocol.directory if cells else Path()
    for path in sorted(directory.glob("cells/*.json")):
        found = read_record(path, *RECORDED)
        place = found["method"], f"{found['sparsity']:.6g}", str(found["seed"])
        cell = missing.get((*place, found["check"]))
        if cell is None or path == cell.path:
            continue
        count += 1
        theirs = found.get("key")
        if theirs is None:
            parts["(written by a version that did not record it)"] = None
            continue
        parts |= dict.fromkeys(
            name for name in cell.key if theirs.get(name) != cell.key[name]
        )
    if count:
        warnings.warn(
            "A finished cell is reused only if everything that it depends on "
            f"is the same. Received: directory='{directory}', in which "
            f"{count} cells of the same names differ from the requested ones "
            f"in: {', '.join(parts)}. They are kept but not used. Choose "
            "another directory to separate the results.",
            stacklevel=3,
        )


def _name(method):
    if isinstance(method, str):
        return method
    kinds = {kind: name for name, kind in registry.METHODS.items()}
    return kinds.get(type(method), type(method).__name__)


def _at(method, sparsity):
    if callable(method) and not isinstance(method, registry.Method):
        return method(sparsity)
    found = registry.get(method, target_sparsity=sparsity)
    if isinstance(method, registry.Method):
        for name, value in vars(method).items():
            plain = isinstance(value, bool | int | float | str)
            if plain and name != "target_sparsity":
                if getattr(found, name, None) != value:
                    raise ValueError(
                        "Each cell gets a copy of its method, created from "
                        "its config. Received: method of type "
                        f"{type(method).__name__}, whose config does not "
                        f"restore all of it: {name}={value!r}. `get_config` "
                        "must return every argument of the constructor."
                    )
    return found


def _refuse_too_long(cell):
    if cell.finetuning_epochs < 0:
        raise ValueError(
            "The search of a method must fit into the epochs of the "
            f"comparison. Received: epochs={cell.protocol.epochs}, of which "
            f"'{cell.name}' takes {cell.method.epochs_of_search} at sparsity "
            f"{cell.method.target_sparsity:g}. Reduce its epochs or rounds, "
            "or increase `epochs`."
        )


def _line(row):
    check = f" {row['check']}" if row["check"] else ""
    place = printable(
        f"{row['method']}{check}, sparsity {row['sparsity']:.2%}, seed "
        f"{row['seed']}"
    )
    if "diverged" in row:
        return f"{place}: diverged; {row['diverged']}"
    before = row["accuracy_before"]
    before = "no number" if before is None else f"{before:.2%}"
    return f"{place}: {before} before, {row['accuracy']:.2%} after fine-tuning"
