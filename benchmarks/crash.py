"""Kills a real run again and again: it must end as if nothing had happened.

The digits recipe mines and fine-tunes in a process of its own, which gets
`kill -9` at random times and is started again until it is finished. Its
ticket and its fine-tuned weights are compared with those of a run that was
left alone, bit for bit.

python benchmarks/crash.py --kills=100 --longest=8

In turns: with `--minutes=10` it stops after so many, and the same command goes
on from what it wrote.
"""

import argparse
import collections
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
RESULTS = Path(__file__).with_name("results") / "crash.json"
_PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import quiet_tensorflow
import dataclasses
from digits import PRESETS
from experiment import Run
values = dict(text.split("=") for text in sys.argv[4:])
settings = dataclasses.replace(
    PRESETS[sys.argv[3]], **{name: int(n) for name, n in values.items()})
Run(settings, sys.argv[2]).run_stages("mine", "finetune")
"""


def start(directory, preset, *settings):
    """Starts mining and fine-tuning in a process of its own."""
    return subprocess.Popen(
        [
            *(sys.executable, "-c", _PROGRAM),
            *(str(RECIPES), str(directory), preset, *settings),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


class Output:
    """Reads what a process prints, and tells what it is doing.

    Args:
        process: `subprocess.Popen`.
    """

    def __init__(self, process):
        self.text = ""
        self.training = threading.Event()
        self._stream = process.stdout
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for line in self._stream:
            self.text += line
            if line.startswith("== "):
                self.training.set()
        self.training.set()

    def finish(self):
        """Returns all that was printed."""
        self._thread.join()
        return self.text

    def place(self):
        """Stage and epoch that were reached."""
        stages = re.findall(r"^== (\w+)", self.text, re.M)
        epochs = re.findall(r"^Epoch (\d+)/", self.text, re.M)
        return (stages or ["start"])[-1], int((epochs or [0])[-1])


def fingerprint(directory):
    """Returns digests of the ticket and of every fine-tuned weight."""
    import keras

    import tf_gems

    [run] = Path(directory).iterdir()
    ticket = tf_gems.Ticket.load(run / "ticket.gem")
    model = keras.models.load_model(run / "finetuned.keras")
    found = {"ticket.gem": (run / "ticket.gem").read_bytes()}
    for kind in ("masks", "weights"):
        for path, value in getattr(ticket, kind).items():
            found[f"ticket {kind} {path}"] = value.tobytes()
    for variable in model.weights:
        found[f"finetuned {variable.path}"] = variable.numpy().tobytes()
    return {k: hashlib.sha256(v).hexdigest() for k, v in found.items()}


def run_killed(directory, preset, settings, delays):
    """Runs to the end, with a kill after each delay until none is left.

    Args:
        directory: Path of the output.
        preset: String.
        settings: List of strings `name=integer`.
        delays: Iterator of seconds after training has begun, or gone on.

    Returns:
        List of `(stage, epoch)`, where the process was killed.
    """
    places = []
    while True:
        process = start(directory, preset, *settings)
        output = Output(process)
        delay = next(delays, None)
        if delay is not None:
            output.training.wait()
            try:
                process.wait(delay)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
        code, text = process.wait(), output.finish()
        if code == 0:
            return places
        if code != -signal.SIGKILL:
            raise RuntimeError(f"The run failed.\n{text[-3000:]}")
        places.append(output.place())
        print(f"killed in {places[-1]}", flush=True)


def parse():
    """Returns what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--preset", default="short")
    parser.add_argument("--longest", type=float, default=8.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("settings", nargs="*")
    return parser.parse_args()


def read_runs(given, question):
    """Returns what earlier turns of the same question found."""
    if not given.output.exists():
        return []
    found = json.loads(given.output.read_text("utf-8"))
    unfinished = found["kills"] < given.kills
    return found["runs"] if unfinished and found["of"] == question else []


def main():
    """Kills runs until there were enough kills, and writes what differed."""
    given = parse()
    question = [given.preset, given.longest, given.seed, *given.settings]
    runs, begin = read_runs(given, question), time.time()
    with tempfile.TemporaryDirectory() as directory:
        run_killed(directory, given.preset, given.settings, iter([]))
        whole = fingerprint(directory)
    kills = sum(len(run["places"]) for run in runs)
    while kills < given.kills:
        if given.minutes and time.time() - begin > 60 * given.minutes:
            print(f"{kills} kills: run the command again to go on.")
            break
        generator = random.Random(f"{given.seed} {len(runs)}")
        start_of_run = time.time()
        with tempfile.TemporaryDirectory() as directory:
            delays = (
                generator.uniform(0, given.longest)
                for _ in range(given.kills - kills)
            )
            places = run_killed(directory, given.preset, given.settings, delays)
            found = fingerprint(directory)
        kills += len(places)
        runs.append(
            {
                "places": places,
                "tensors_compared": len(whole),
                "different": [k for k in whole if whole[k] != found.get(k)],
                "seconds": round(time.time() - start_of_run, 1),
            }
        )
        print(f"{kills} kills: {runs[-1]['different']}", flush=True)
        write(given.output, question, runs, whole)


def write(path, question, runs, whole):
    """Writes what was found up to now."""
    from tf_gems.provenance import provenance

    places = [place for run in runs for place in run["places"]]
    report = {
        "command": " ".join(["python", *sys.argv]),
        "of": question,
        "kills": len(places),
        "kills_by_stage": collections.Counter(stage for stage, _ in places),
        "different": [name for run in runs for name in run["different"]],
        "tensors_compared": sum(run["tensors_compared"] for run in runs),
        "ticket": whole["ticket.gem"],
        "seconds": round(sum(run["seconds"] for run in runs)),
        "runs": runs,
        "provenance": provenance(),
    }
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
