"""Compares exports of sparse networks with those of TF Model Optimization.

    python benchmarks/deployment.py --models=DIRECTORY \\
        --output=benchmarks/results/deployment.json
    python benchmarks/deployment.py --render=benchmarks/results/deployment.json

The benchmark trains two networks (ResNet-20 on CIFAR-10 and a sparse-ready
MobileNetV1 on 20 classes of Tiny ImageNet) to four sparsities by two routes,
and records the size and the accuracy of every exported file. In the first
route, this library mines and fine-tunes the network, and
`tf_gems.deployment_report` exports it. In the second route, TF Model
Optimization prunes the network by magnitude, strips it, and converts it with
`EXPERIMENTAL_SPARSITY`. The programs `deployment_train.py` and
`deployment_forms.py` do the work in separate processes. Trained models are kept
in `--models`, so that an interrupted run can continue and the files can be
exported again. Training is short and equally long for both routes. The table
compares the exported files, and not the methods at their best accuracy.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app
from absl import flags
from deployment_train import ROUTES
from deployment_train import SPARSITIES
from deployment_train import TASKS
from deployment_train import define_flags
from deployment_train import directory_of

from tf_gems.files import replacing
from tf_gems.provenance import provenance

FLAGS = flags.FLAGS
NAMES = {"gem_miner": "tf_gems", "tfmot": "tfmot"}
COLUMNS = (
    ("float32", "dense", "dense .tflite"),
    ("float32", "sparse", "sparse .tflite"),
    ("float16", "sparse", "float16 sparse"),
    ("dynamic_int8", None, "dynamic int8"),
    ("int8", None, "int8"),
    ("gem", "sparse", ".gem"),
    ("gem_float16", "sparse", ".gem float16"),
    ("saved_model", "dense", "SavedModel dense"),
    ("saved_model", "sparse", "SavedModel sparse"),
)


def run(program, network, sparsity, route):
    """Runs one of the two programs for a cell in a separate process."""
    subprocess.run(
        [
            sys.executable,
            str(Path(__file__).with_name(program)),
            f"--network={network}",
            f"--sparsity={sparsity}",
            f"--route={route}",
            f"--models={FLAGS.models}",
            f"--data_dir={FLAGS.data_dir}",
        ],
        check=True,
    )


def cells():
    """Yields the network, sparsity and route of every cell."""
    for network in TASKS:
        for sparsity in SPARSITIES:
            for route in ROUTES:
                yield network, sparsity, route


def collect():
    """Trains, exports and evaluates the cells. Returns their rows."""
    found = []
    for network, sparsity, route in cells():
        directory = directory_of(FLAGS.models, network, sparsity, route)
        for program, name in (
            ("deployment_train.py", "train.json"),
            ("deployment_forms.py", "forms.json"),
        ):
            if not (directory / name).exists() and not FLAGS.only_collect:
                run(program, network, sparsity, route)
        if not (directory / "forms.json").exists():
            print(f"missing: {directory.name}")
            continue
        trained, forms = (
            json.loads((directory / name).read_text("utf-8"))
            for name in ("train.json", "forms.json")
        )
        before = [
            row["accuracy"]
            for row in forms["rows"]
            if row["form"] == "ticket before fine-tuning"
        ]
        found.append(
            {
                **trained,
                "accuracy": forms["accuracy"],
                "accuracy_before_finetuning": before[0] if before else None,
                "forms": forms["rows"],
            }
        )
        write(found)
    return found


def write(found):
    """Writes the results so far."""
    results = {
        "benchmark": "deployment",
        "command": "python benchmarks/deployment.py --models=DIRECTORY",
        "provenance": provenance(),
        "cells": found,
    }
    with replacing(FLAGS.output) as file:
        file.write((json.dumps(results, indent=1) + "\n").encode())


def pick(cell, form, encoding):
    """Returns the row of a format that runs. Prefers the sparse file."""
    rows = [row for row in cell["forms"] if row["form"] == form]
    if encoding is not None:
        rows = [row for row in rows if row["encoding"] == encoding]
    rows.sort(key=lambda row: (row["refused"] is not None, row["bytes"] or 0))
    return rows[0] if rows else None


def render(results):
    """Returns Markdown tables of gzip sizes, accuracies and failures."""
    lines, refusals = [], {}
    for network in dict.fromkeys(cell["network"] for cell in results["cells"]):
        mine = [c for c in results["cells"] if c["network"] == network]
        first = mine[0]
        lines += [
            f"**{network}**, {first['dataset']} ({first['train_images']:,} "
            f"training images, {first['epochs']} epochs in total; accuracy "
            f"on {first['test_images']:,} test images). kB, gzip in "
            "parentheses, accuracy:",
            "",
            "| zeros | route | " + " | ".join(n for *_, n in COLUMNS) + " |",
            "| --- " * (2 + len(COLUMNS)) + "|",
        ]
        for cell in mine:
            line = [f"{cell['target_sparsity']:.2%}", NAMES[cell["route"]]]
            line += [shown(pick(cell, *column[:2])) for column in COLUMNS]
            for row in cell["forms"]:
                if row["refused"]:
                    which = NAMES[cell["route"]], row["form"], row["encoding"]
                    where = f"{network} {line[0]}"
                    key = " ".join(filter(None, which)), row["refused"]
                    refusals.setdefault(key, []).append(where)
            lines.append("| " + " | ".join(line) + " |")
        lines.append("")
    lines += [
        f"* {name}: {reason} ({', '.join(places)})"
        for (name, reason), places in refusals.items()
    ]
    return "\n".join(lines)


def shown(row):
    """Returns the text of a table cell."""
    if row is None or row["bytes"] is None:
        return "-"
    size = f"{row['bytes'] / 1e3:,.1f} ({row['gzip_bytes'] / 1e3:,.1f})"
    if row["refused"]:
        return f"{size} **fails, see below**"
    return f"{size} {row['accuracy']:.1%}"


def main(_):
    """Runs the missing cells, or renders an existing file."""
    if FLAGS.render:
        print(render(json.loads(Path(FLAGS.render).read_text("utf-8"))))
        return
    print(render({"cells": collect()}))


if __name__ == "__main__":
    define_flags()
    flags.DEFINE_string(
        "output", "deployment.json", "Path of the JSON file to write."
    )
    flags.DEFINE_string(
        "render",
        None,
        "Path of a JSON file to print as tables, without training.",
    )
    flags.DEFINE_bool(
        "only_collect",
        False,
        "Whether to collect existing results without training.",
    )
    app.run(main)
