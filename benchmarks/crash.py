"""Kills real jobs again and again: they must end as if nothing had happened.

    python benchmarks/crash.py --kills=1000

The jobs are those of `crash_stages.py`: a recipe that mines and fine-tunes,
exports, a comparison, and a search of KerasTuner. Each runs in a process that
gets `kill -9`, and is started again until it is finished. Half of the kills
come before a file operation of the process (every one of an undisturbed run
has its turn), the others at a random time. In the end there must be the files
of a run that was left alone, each with the same bytes where nothing in it is a
time, and no others.

Processes are forks of this one, so that TensorFlow is imported once; a kill
takes the process only, and not the converter that it started. KerasTuner writes
its `oracle.json` in place: searches that it lost at such a moment are counted.

In turns: with `--minutes=10` it stops after so many, and the same command goes
on from what it wrote.
"""

import argparse
import collections
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

import crash_stages
from sweep_models.process import fork
from sweep_models.process import memory_of

RESULTS = Path(__file__).with_name("results") / "crash.json"
_OPERATIONS = re.compile(r"open|(os|shutil|tempfile)\.\w+")
_READING = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")
_LONGEST = 3600.0  # seconds after which a process hangs


def start(stage, directory, kill_before=None):
    """Starts a job in a fork of this process.

    Args:
        stage: Name in `crash_stages.STAGES`.
        directory: Path of its own.
        kill_before: The number of the file operation before which the process
            ends itself. Defaults to `None`: it does not.

    Returns:
        The number of the process. It logs its operations in `DIRECTORY.log`.
    """

    def run():
        modes = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        log = os.open(f"{directory}.log", modes)
        os.environ["TMPDIR"] = tempfile.tempdir = str(directory.parent)
        directory.mkdir(exist_ok=True)
        _count_operations(str(directory) + os.sep, log, kill_before)
        crash_stages.STAGES[stage](directory)

    return fork(run, f"{directory}.said")


def _count_operations(directory, log, kill_before):
    """Logs what is done to files below a directory; see `start`."""
    count = 0

    def hook(event, arguments):
        nonlocal count
        if not _OPERATIONS.fullmatch(event) or event in _READING:
            return
        paths = [a for a in arguments[:2] if isinstance(a, str | os.PathLike)]
        paths = [os.fspath(path) for path in paths]
        if not any(path.startswith(directory) for path in paths):
            return
        if event == "open" and not arguments[2] & (os.O_WRONLY | os.O_RDWR):
            return  # what is read only leaves all as it is
        count += 1
        name = re.sub(r"[0-9a-f]{12,}", "*", Path(paths[0]).name)
        os.write(log, f"{event} {name}\n".encode())
        if count == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def finish(number, seconds=None):
    """Waits for a process, or kills it after so many seconds.

    Returns:
        Its exit code; `-9` if it was killed.
    """
    end = time.monotonic() + (_LONGEST if seconds is None else seconds)
    while time.monotonic() < end:
        found, status = os.waitpid(number, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(number, signal.SIGKILL)
    _, status = os.waitpid(number, 0)
    if seconds is None:
        raise RuntimeError(f"A process took more than {_LONGEST:.0f} seconds.")
    return os.waitstatus_to_exitcode(status)


def _ends(session):
    """Whether no process of a session is left, after a while."""
    for _ in range(600):
        if not memory_of(session):
            return True
        time.sleep(0.1)
    return False


def operations(directory):
    """Returns the file operations of the last process, in order."""
    return Path(f"{directory}.log").read_text("utf-8").splitlines()


def left_alone(stage):
    """Returns files, operations and seconds of a run that nobody kills."""
    with tempfile.TemporaryDirectory() as folder:
        directory, begin = Path(folder, "run"), time.monotonic()
        if finish(start(stage, directory)):
            raise RuntimeError(Path(f"{directory}.said").read_text("utf-8"))
        seconds = time.monotonic() - begin
        return crash_stages.files(directory), operations(directory), seconds


def run_killed(stage, whole, first, most, generator):
    """Runs a job until it is finished, with at most so many kills.

    Args:
        stage: Name in `crash_stages.STAGES`.
        whole: What `left_alone` returned.
        first: Integer, how many kills there were before.
        most: Integer.
        generator: `random.Random`.

    Returns:
        Dict for the report.
    """
    files, steps, longest = whole
    places, sessions, problem, lost = [], [], None, False
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder, "run")
        while True:
            kill = {}
            if len(places) < most:
                # Each operation in turn, and a time.
                turn, by_time = divmod(first + len(places), 2)
                kill = {"before": 1 + turn % len(steps)}
                if by_time:
                    kill = {"seconds": generator.uniform(0, longest)}
            sessions.append(start(stage, directory, kill.get("before")))
            code = finish(sessions[-1], kill.get("seconds"))
            if code != -signal.SIGKILL:
                break
            place = "at a random time"
            if "before" in kill:
                place = f"before {operations(directory)[-1]}"
            places.append(place)
        found = crash_stages.files(directory)
        if code:
            problem = Path(f"{directory}.said").read_text("utf-8")[-2000:]
            lost = _is_lost_by_keras_tuner(problem)
        elif not all(map(_ends, sessions)):
            problem = "A converter outlives the process that started it."
    return {
        "stage": stage,
        "kills": len(places),
        "places": collections.Counter(places),
        "files_compared": 0 if lost else len(files),
        "different": [
            k for k in files if not lost and files[k] != found.get(k)
        ],
        "left_behind": [k for k in found if not lost and k not in files],
        "lost_by_keras_tuner": lost,
        "problem": None if lost else problem,
    }


def _is_lost_by_keras_tuner(problem):
    """Whether KerasTuner was killed while it wrote a file of its own in place.

    It cannot load its search then.
    """
    return "keras_tuner/src/engine/stateful.py" in problem and (
        "JSONDecodeError" in problem
    )


def parse():
    """Returns what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--kills_of_a_run", type=int, default=8)
    parser.add_argument("--stages", nargs="*", default=crash_stages.STAGES)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=None)
    parser.add_argument("--output", type=Path, default=RESULTS)
    return parser.parse_args()


def read_runs(given, question):
    """Returns what earlier turns of the same question found."""
    if not given.output.exists():
        return []
    found = json.loads(given.output.read_text("utf-8"))
    return found["runs"] if found["of"] == question else []


def main():
    """Kills jobs until there were enough kills, and writes what differed."""
    given, begin = parse(), time.monotonic()
    question = [given.kills, given.kills_of_a_run, given.seed, *given.stages]
    runs = read_runs(given, question)
    wholes = {stage: left_alone(stage) for stage in given.stages}
    share = given.kills // len(given.stages)
    while True:
        kills = collections.Counter()
        for run in runs:
            kills[run["stage"]] += run["kills"]
        missing = [s for s in given.stages if kills[s] < share]
        if not missing:
            break
        if given.minutes and time.monotonic() - begin > 60 * given.minutes:
            print(f"{kills.total()} kills: run the command again to go on.")
            break
        stage = min(missing, key=kills.__getitem__)
        runs.append(
            run_killed(
                stage,
                wholes[stage],
                kills[stage],
                min(given.kills_of_a_run, share - kills[stage]),
                random.Random(f"{given.seed} {len(runs)}"),
            )
        )
        found = runs[-1]
        print(
            f"{kills.total() + found['kills']} kills, {stage}:",
            found["different"] + found["left_behind"],
            found["problem"] or "",
            flush=True,
        )
        write(given.output, question, runs, wholes)


def write(path, question, runs, wholes):
    """Writes what was found up to now."""
    from tf_gems.provenance import provenance

    by_stage, places = collections.Counter(), collections.Counter()
    for run in runs:
        by_stage[run["stage"]] += run["kills"]
        places.update(run["places"])
    report = {
        "command": " ".join(["python", *sys.argv]),
        "of": question,
        "kills": by_stage.total(),
        "kills_by_stage": by_stage,
        "kills_by_place": dict(places.most_common()),
        "file_operations_of_a_run": {
            stage: len(steps) for stage, (_, steps, _) in wholes.items()
        },
        "files_compared": sum(run["files_compared"] for run in runs),
        "lost_by_keras_tuner": sum(run["lost_by_keras_tuner"] for run in runs),
        "different": sum((run["different"] for run in runs), []),
        "left_behind": sum((run["left_behind"] for run in runs), []),
        "problems": [run["problem"] for run in runs if run["problem"]],
        "runs": runs,
        "provenance": provenance(),
    }
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
