"""Runs cells of a comparison on an executor of `concurrent.futures`."""

import contextlib
import json
import os
import threading
from concurrent import futures

import keras

from tf_gems.files import claimed
from tf_gems.fingerprint.data import describe_data
from tf_gems.fingerprint.values import digest

_IMPORTED_IN = os.getpid()
_ONE_CELL = threading.Lock()
_AT_ONCE = 256  # tickets; each is an open lock file of this process


def check_executor(executor, strategy):
    """Raises an error for an executor that cannot run cells."""
    if executor is None:
        return
    if not callable(getattr(executor, "submit", None)):
        raise ValueError(
            "`executor` must be a `concurrent.futures.Executor`. Received: "
            f"executor={executor!r:.100}. Pass an object such as "
            "`ProcessPoolExecutor(2, mp_context=get_context('spawn'))`, or "
            "leave it out."
        )
    if isinstance(executor, futures.ThreadPoolExecutor):
        raise ValueError(
            "Cells must run in separate processes, because threads share the "
            "random seed and the session of Keras. Received: executor of "
            f"type {type(executor).__name__}. Pass a `ProcessPoolExecutor`."
        )
    if strategy is not None or keras.distribution.distribution() is not None:
        raise ValueError(
            "`executor` and a distribution strategy cannot be combined. "
            "Received: `executor` with a distribution strategy. Leave one of "
            "them out."
        )


def run_on(executor, cells, report):
    """Runs cells on an executor, and returns their rows in order.

    The cells of one ticket run one after another in one worker. This process
    claims a ticket for as long as a worker is busy with it, so that it can
    share a directory with processes that were started by hand.
    """
    waiting, running, rows = {}, {}, {}
    for cell in cells:
        waiting.setdefault(cell.lock, []).append(cell)
    if not all(cell.path.exists() for cell in cells):
        _check_workers(executor, cells)

    def keep(group, found):
        for cell, row in zip(group, found, strict=True):
            rows[cell.path] = row
            report(row)

    def start(lock, wait=False):
        """Submits the cells of a ticket, if nobody else has claimed it."""
        with contextlib.ExitStack() as claim:
            if not claim.enter_context(claimed(lock, wait)):
                return
            group = waiting.pop(lock)
            if all(cell.path.exists() for cell in group):
                keep(group, [cell.row() for cell in group])
                return
            future = executor.submit(run_cells, group, _settings())
            running[future] = group, claim.pop_all()

    try:
        while waiting or running:
            for lock in list(waiting):
                if len(running) < _AT_ONCE:
                    start(lock)
            if waiting and not running:
                start(next(iter(waiting)), wait=True)
            done, _ = futures.wait(running, return_when=futures.FIRST_COMPLETED)
            for future in done:
                group, claim = running.pop(future)
                with claim:
                    keep(group, future.result())
    finally:
        # A cell that has begun is finished: its files are still claimed.
        futures.wait([f for f in running if not f.cancel()])
        for _, claim in running.values():
            claim.close()
    return [rows[cell.path] for cell in cells]


def run_cells(cells, settings):
    """Runs cells of one ticket in a worker."""
    with _ONE_CELL:
        for name, value in settings.items():
            getattr(keras.config, f"set_{name}")(value)
        _check_data(cells[0])
        return [cell.row() for cell in cells]


def _settings():
    """Returns the settings of Keras, which workers do not inherit."""
    names = "floatx", "epsilon", "image_data_format", "dtype_policy"
    return {name: getattr(keras.config, name)() for name in names}


def _check_data(cell):
    """Raises an error unless a worker reads what the caller read."""
    protocol = cell.protocol
    for name, data in (
        ("test", protocol.test),
        ("training", protocol.data(cell.seed)),
    ):
        key = digest(describe_data(data, name))
        if key != cell.key[f"{name} data"]:
            raise ValueError(
                "Every worker must read the same data. Received: "
                f"seed={cell.seed}, whose {name} data differs from that of "
                "the process that called `compare`. Give all workers access "
                "to the same files, and derive all random numbers from the "
                "seed."
            )


def _check_workers(executor, cells):
    """Raises an error, before any work, if workers cannot run cells."""
    directory = cells[0].path.parent
    directory.mkdir(parents=True, exist_ok=True)
    try:
        # Without models or data, which may hang in a process that was forked.
        found = executor.submit(_describe_worker, str(directory)).result()
        whole = not found["forked"] and executor.submit(len, cells).result()
    except Exception as error:
        raise ValueError(
            "Workers receive the arguments of `compare` by pickling. "
            f"Received: executor of type {type(executor).__name__}, whose "
            f"worker failed with {type(error).__name__}: {error!s:.300} "
            "Define functions and classes in a module, not within functions; "
            "pass a function from a seed instead of a `tf.data.Dataset`; and "
            "in a script, call `compare` below `if __name__ == '__main__':`."
        ) from error
    if not whole:
        raise ValueError(
            "A process that is forked from one that uses TensorFlow or JAX may "
            f"hang. Received: executor of type {type(executor).__name__}, "
            "whose workers are forked. Pass `mp_context="
            "multiprocessing.get_context('spawn')` to it."
        )
    ours = {**_describe_worker(str(directory)), "forked": False}
    differ = [name for name in ours if found[name] != ours[name]]
    if differ:
        received = {name: found[name] for name in differ}
        raise ValueError(
            "Workers must have the same backend and the same directory. "
            f"Received: a worker with {json.dumps(received)}; here it is "
            f"{json.dumps({name: ours[name] for name in differ})}."
        )


def _describe_worker(directory):
    return {
        "forked": os.getpid() != _IMPORTED_IN,
        "backend": keras.backend.backend(),
        "keras": keras.__version__,
        f"access to {directory}": os.path.isdir(directory),
    }
