"""Publishes the files of a finished run with a model card.

    python recipes/publish.py savedmodels/digits-86a07570667a digits

This command writes `savedmodels/digits.gem` (the ticket before fine-tuning),
`digits.tflite` (the sparse network after fine-tuning), `digits.png` and the
card `digits.json`.
"""

import json
import re
import shutil
import sys
from pathlib import Path

import picture
from absl import app

from tf_gems.files import replacing
from tf_gems.files import write_text
from tf_gems.text import file_name


def publish(run, name):
    """Publishes a run.

    Args:
        run: Path of the run's directory.
        name: String, the stem of the file names. Files that were published
            under this name are replaced.

    Raises:
        FileExistsError: If other files have these names.
        ValueError: If `name` contains parts of a path.
    """
    if file_name(name) != name:
        raise ValueError(
            "`name` must be a file name without directories and special "
            f"characters. Received: name={name!r}. Use a plain name, such as "
            "'digits'."
        )
    results = json.loads((run / "results.json").read_text("utf-8"))
    stages = results["stages"]
    export = stages["export"]
    files = {
        f"{name}.gem": run / "ticket.gem",
        f"{name}.tflite": run / "sparse.tflite",
        f"{name}.png": run / "report.png",
    }
    _refuse_others(run.parent, name, [*files, f"{name}.json"])
    card = {
        "command": results["command"],
        "provenance": results["provenance"],
        "settings": results["settings"],
        "kept": stages["mine"]["kept"],
        "size": stages["mine"]["size"],
        "accuracy": {
            "dense": stages["dense"]["accuracy"],
            "random": stages["random"]["accuracy"],
            "before_finetuning": stages["mine"]["accuracy"],
            "after_finetuning": stages["finetune"]["accuracy"],
            "tflite": export["accuracy"],
        },
        "seconds": {key: stage["seconds"] for key, stage in stages.items()},
        "curves": {
            stage: _curves(run / f"{stage}.csv")
            for stage in ("mine", "finetune", "random", "dense")
        },
        "bytes": {
            "ticket": files[f"{name}.gem"].stat().st_size,
            "sparse_tflite": export["litert"]["bytes"],
            "sparse_tflite_gzip": export["litert"]["gzip_bytes"],
            "dense_tflite": export["litert"]["dense_bytes"],
            "dense_tflite_gzip": export["litert"]["dense_gzip_bytes"],
            "saved_model": export["saved_model"]["bytes"],
            "saved_model_gzip": export["saved_model"]["gzip_bytes"],
        },
    }
    for target, source in files.items():
        with open(source, "rb") as file, replacing(run.parent / target) as copy:
            shutil.copyfileobj(file, copy)
    text = json.dumps(card, indent=1) + "\n"
    # Lists of numbers are easier to read on one line.
    text = re.sub(r"\[[^\[\]{}]*\]", lambda m: " ".join(m[0].split()), text)
    write_text(run.parent / f"{name}.json", text)
    print(f"Wrote {', '.join(files)} and {name}.json to {run.parent}")


def _refuse_others(directory, name, files):
    """Raises an error if files would be replaced that have no model card."""
    there = [file for file in files if (directory / file).exists()]
    try:
        card = json.loads((directory / f"{name}.json").read_bytes())
        ours = {"command", "settings", "accuracy", "bytes"} <= set(card)
    except (OSError, RecursionError, TypeError, ValueError):
        ours = False
    if there and not ours:
        raise FileExistsError(
            "Only published files are replaced. Received: "
            f"name={name!r}, but '{directory}' holds {', '.join(there)}, "
            "without the card of a run. Choose another name."
        )


def _curves(path):
    """Returns the values of the plot, a list over epochs for each quantity."""
    rows = picture.read(path)
    return {
        key: [round(row[key], 5) for row in rows]
        for key in ("val_accuracy", "density", "alive_density")
        if key in rows[0]
    }


def main(arguments):
    """Publishes the run that the command line names."""
    if len(arguments) != 3:
        sys.exit(f"usage: {arguments[0]} RUN_DIRECTORY NAME")
    publish(Path(arguments[1]), arguments[2])


if __name__ == "__main__":
    app.run(main)
