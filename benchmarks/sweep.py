"""Takes models that nobody here wrote through every stage of the library.

    python benchmarks/sweep.py --suite=patterns
    python benchmarks/sweep.py --only='vae|gan' --rerun
    python benchmarks/sweep.py --render

Three suites: every network of `keras.applications`, every backbone and task of
KerasHub with small random weights, and the patterns of users in
`sweep_models/patterns_*.py`. Each goes through the stages of
`sweep_models/stages.py`: report, wrap, mine, exact density, the ticket's file,
fine-tune, SavedModel, LiteRT, strip, training on, `.keras`, the ticket on
another copy, and the network that a ticket builds; each is compared with the
model that its user holds. Where Keras or its converter fails on the plain
model, the table says so; that is tried in the same run.

Each model is a process of its own with a limit of time and memory. Records go
to `benchmarks/results/sweep.json`, one a line, after each model; a model that
has a record is not run again without `--rerun`. `--render` writes
`docs/sweep.md` and runs nothing.
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
flags.DEFINE_list("suite", None, "Names of suites; default: all.")
flags.DEFINE_string("only", "", "Regular expression, searched for in names.")
flags.DEFINE_bool("rerun", False, "Run models that have a record as well.")
flags.DEFINE_bool("failed", False, "Run those again that failed.")
flags.DEFINE_bool("render", False, "Write the table; run nothing.")
flags.DEFINE_bool("list", False, "Print the names; run nothing.")
flags.DEFINE_list("leave_out", [], "Stages to leave out, for a quick look.")
flags.DEFINE_integer("jobs", 1, "Models at a time.")
flags.DEFINE_integer("seconds", 300, "Limit of each model.")
flags.DEFINE_float("gigabytes", 8.0, "Limit of each model's memory.")
flags.DEFINE_string("output", str(HERE / "results" / "sweep.json"), "Records.")
flags.DEFINE_string(
    "table", str(HERE.parent / "docs" / "sweep.md"), "The table."
)


def without_paths(outcome):
    """Returns a message without the folders of this machine."""
    return re.sub(r"/(?:[\w.+-]+/)+", "", outcome)


def run_case(case, record, directory):
    """Runs one model, in this process; writes its record after each stage."""
    from sweep_models.stages import Sweep

    def tell(outcomes, seconds, stage):
        text = {"stages": outcomes, "seconds": seconds, "stage": stage}
        record.write_text(json.dumps(text), "utf-8")

    Sweep(case, directory, tell, FLAGS.leave_out).run()


def run_dense(case, step, record, directory):
    """Tries a step on the plain model, in this process."""
    from sweep_models import dense

    reason = dense.attempt(case, step, directory)
    record.write_text(json.dumps(reason), "utf-8")


def run_model(case, keep):
    """Yields the processes of a model; gives its record to `keep`."""
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
            # Nothing of the library runs before the model is built.
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
    """Writes the records, one a line."""
    from tf_gems.files import write_text

    rows = [json.dumps(records[key]) for key in sorted(records)]
    text = ",\n".join(rows)
    Path(FLAGS.output).parent.mkdir(exist_ok=True)
    made = json.dumps(versions())
    write_text(
        FLAGS.output, f'{{"versions": {made},\n"records": [\n{text}\n]}}\n'
    )


def versions():
    """Returns the versions of what is swept."""
    names = ("keras", "keras-hub", "tensorflow", "ai-edge-litert")
    return {name: importlib.metadata.version(name) for name in names}


def run(cases):
    """Runs models, and keeps each record as soon as it is there."""
    # Imported once, for all that is forked; nothing is run with it here.
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
    """Runs what has no record yet, and writes the table."""
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
