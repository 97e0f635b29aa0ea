"""What every experiment does: search once, fine-tune, record once.

A finished experiment is a JSON file. Its name is a `digest` of what the numbers
depend on, so that the same call finds it again and runs nothing.
"""

import json
from pathlib import Path

from tf_gems.files import read_record
from tf_gems.files import remove_leftovers
from tf_gems.files import write_text
from tf_gems.fingerprint.values import digest as digest
from tf_gems.ticket import Ticket
from tf_gems.training import train


def recorded(path, run, stem=None):
    """Returns the record of an experiment, which is run unless it is there.

    `stem` begins the names of all files of the experiment; by default it is
    that of the path.
    """
    path = Path(path)
    # Also of a process that was killed after it had written the record.
    remove_leftovers(path.parent, stem or path.stem)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(run(), indent=1))
    return read_record(path)


def searched(file, method, model, data, directory, **arguments):
    """Returns the ticket of a method, which is searched for unless it is there.

    Args:
        file: Path of the ticket's file.
        method: `tf_gems.methods.Method`.
        model: Compiled `tf_gems.SparseModel`.
        data: See `tf_gems.methods.Method.find`.
        directory: Where the search keeps its backups.
        **arguments: Further ones of `find`.

    Returns:
        `tf_gems.Ticket`, as it is read from the file.
    """
    file = Path(file)
    remove_leftovers(file.parent, file.stem)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        method.find(model, data, directory=directory, **arguments).save(file)
    return Ticket.load(file)


def finetune(
    model,
    ticket,
    data,
    epochs,
    learning_rate,
    evaluate,
    directory,
    verbose=0,
):
    """Applies a ticket, trains, and evaluates before and after.

    Returns the accuracy before training, `None` without a ticket; the accuracy
    after it; and the losses of the epochs.
    """
    before, losses = None, []
    if ticket is not None:
        ticket.apply(model)
        model.compiled = True  # a switch of phase changes no metric
        before = evaluate(model)
    if epochs:
        history = train(
            model, data, epochs, learning_rate, (), directory, verbose
        )
        losses = history.history.get("loss", [])
    return before, evaluate(model), losses
