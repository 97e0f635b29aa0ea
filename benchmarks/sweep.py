"""Runs third-party models through every stage of the library.

    python benchmarks/sweep.py --suite=patterns
    python benchmarks/sweep.py --only='vae|gan' --rerun
    python benchmarks/sweep.py --render

There are three suites: every network of `keras.applications`, every backbone
and task of KerasHub with small random weights, and the user patterns of
`sweep_models/patterns_*.py`. Each model goes through the stages of
`sweep_models/stages.py`: report, wrap, mine, exact density, ticket file,
fine-tune, SavedModel, LiteRT, strip, further training, `.keras`, applying the
ticket to another copy, and building the network of the ticket. Each result is
compared with the user's own model. If Keras or its converter fails on the plain
model in the same run, the table says so.

Each model runs in a separate process with limits on time and memory. Its record
is written to `benchmarks/results/sweep.json` when it finishes. A model that has
a record is not run again without `--rerun`. `--render` writes `docs/sweep.md`
without running any model.
"""

import functools
import importlib.metadata
import json
import os
import re
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from absl import app
from absl import flags

HERE = Path(__file__).resolve().parent
sys.path += [str(HERE), str(HERE.parent)]

FLAGS = flags.FLAGS
flags.DEFINE_list("suite", None, "Names of the suites. Defaults to all.")
flags.DEFINE_string(
    "only", "", "Regular expression to search for in the names."
)
flags.DEFINE_bool(
    "rerun", False, "Whether to also run models that have a record."
)
flags.DEFINE_bool("failed", False, "Whether to run failed models again.")
flags.DEFINE_bool("render", False, "Whether to only write the table.")
flags.DEFINE_bool("list", False, "Whether to only print the names.")
flags.DEFINE_list("leave_out", [], "Names of stages to skip.")
flags.DEFINE_integer("jobs", 1, "Number of models to run in parallel.")
flags.DEFINE_integer("seconds", 300, "Time limit of each model, in seconds.")
flags.DEFINE_float("gigabytes", 8.0, "Memory limit of each model, in GB.")
flags.DEFINE_string(
    "output",
    str(HERE / "results" / "sweep.json"),
    "Path of the JSON file of the records.",
)
flags.DEFINE_string(
    "table",
    str(HERE.parent / "docs" / "sweep.md"),
    "Path of the Markdown table.",
)


def without_paths(outcome):
    """Returns a message without directories of the machine."""
    return re.sub(r"/(?:[\w.+-]+/)+", "", outcome)


def run_case(case, record, directory):
    """Runs one model in this process. Writes its record after each stage."""
    from sweep_models.stages import Sweep

    def tell(outcomes, seconds, stage):
        text = {"stages": outcomes, "seconds": seconds, "stage": stage}
        record.write_text(json.dumps(text), "utf-8")

    Sweep(case, directory, tell, FLAGS.leave_out).run()


def run_dense(case, step, record, directory):
    """Tries a step on the plain model in this process."""
    from sweep_models import dense

    reason = dense.attempt(case, step, directory)
    record.write_text(json.dumps(reason), "utf-8")


def run_model(case, keep):
    """Yields the processes of a model, and passes its record to `keep`."""
    from sweep_models.process import Process
    from sweep_models.stages import KERAS_STEP
    from sweep_models.stages import verdict
    from sweep_models.stages import with_dense

    limits = FLAGS.seconds, FLAGS.gigabytes
    with tempfile.TemporaryDirectory(prefix="sweep-") as directory:
        directory = Path(directory)
        record = directory / "record.json"
        run = functools.partial(run_case, case, record, directory)
        process = Process(run, *limits, directory / "log.txt")
        yield process
        found = {"stages": {}, "seconds": {}, "stage": "build"}
        if record.exists():
            found = json.loads(record.read_text("utf-8"))
        stages, seconds = found["stages"], found["seconds"]
        if process.problem or found["stage"]:
            stage = found["stage"] or "end"
            # The library is not used before the model is built.
            word = "keras_fails" if stage == "build" else "failed"
            stages[stage] = f"{word}: the process ended: {process.problem}"
        for stage, step in KERAS_STEP.items():
            outcome = stages.get(stage, "ok")
            early = stage == "mine" and outcome.startswith("refused")
            if early or outcome.startswith(("ok", "skipped")):
                continue
            answer = directory / f"{step}.json"
            run = functools.partial(run_dense, case, step, answer, directory)
            process = Process(run, *limits, directory / "log.txt")
            yield process
            reason = f"the process ended: {process.problem}"
            if answer.exists():
                reason = json.loads(answer.read_text("utf-8"))
            stages[stage] = with_dense(outcome, reason)
        if stages.get("mine", "").startswith("keras_fails"):
            for stage in ("finetune", "reuse"):
                stages[stage] = "skipped: Keras does not train it"
    stages = {name: without_paths(text) for name, text in stages.items()}
    keep(
        {
            "suite": case.suite,
            "name": case.name,
            "about": case.about,
            "verdict": verdict(stages),
            "stages": stages,
            "seconds": seconds,
        }
    )


def read():
    """Returns the records by suite and name."""
    path = Path(FLAGS.output)
    if not path.exists():
        return {}
    rows = json.loads(path.read_text("utf-8"))["records"]
    return {(row["suite"], row["name"]): row for row in rows}


def write(records):
    """Writes the records, one per line."""
    from tf_gems.files import write_text

    rows = [json.dumps(records[key]) for key in sorted(records)]
    text = ",\n".join(rows)
    Path(FLAGS.output).parent.mkdir(exist_ok=True)
    made = json.dumps(versions())
    write_text(
        FLAGS.output, f'{{"versions": {made},\n"records": [\n{text}\n]}}\n'
    )


def versions():
    """Returns the versions of the tested libraries."""
    names = ("keras", "keras-hub", "tensorflow", "ai-edge-litert")
    return {name: importlib.metadata.version(name) for name in names}


def run(cases):
    """Runs models, and writes each record as soon as it is complete."""
    # Imported once for all forks. No operation must run in this process.
    import tensorflow  # noqa: F401
    from sweep_models.process import run_all

    import tf_gems  # noqa: F401

    def keep(row):
        records = read()
        records[row["suite"], row["name"]] = row
        write(records)
        spent = sum(row["seconds"].values())
        print(f"{row['verdict']:>14}  {row['name']}  {spent:.0f} s")
        for stage, outcome in row["stages"].items():
            if not outcome.startswith(("ok", "skipped")):
                print(f"{'':>16}{stage}: {outcome[:160]}")
        sys.stdout.flush()

    run_all((run_model(case, keep) for case in cases), FLAGS.jobs)


def main(_):
    """Runs the models without a record, and writes the table."""
    from sweep_models import SUITES
    from sweep_models import load
    from sweep_models.table import render

    records = read()
    if not FLAGS.render:
        cases = [
            case
            for suite in FLAGS.suite or SUITES
            for case in load(suite).values()
            if re.search(FLAGS.only, case.name)
        ]
        if FLAGS.list:
            print(*(f"{c.suite}/{c.name}" for c in cases), sep="\n")
            return

        def wanted(case):
            row = records.get((case.suite, case.name))
            again = FLAGS.failed and row and row["verdict"] == "failed"
            return FLAGS.rerun or row is None or again

        run([case for case in cases if wanted(case)])
    names = {suite: list(load(suite)) for suite in SUITES}
    Path(FLAGS.table).write_text(render(read(), names), "utf-8")


if __name__ == "__main__":
    app.run(main)
