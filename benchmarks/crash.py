"""Kills jobs repeatedly and checks that they still finish correctly.

    python benchmarks/crash.py --kills=1000

The jobs are those of `crash_stages.py`: a recipe that mines and fine-tunes, an
export, a comparison, and a KerasTuner search. Each job runs in a process that
receives `kill -9` and is restarted until it finishes. Half of the kills precede
a file operation of the process, and cover every operation of an undisturbed
run. The other half come at random times. At the end, the directory must hold
exactly the files of an undisturbed run. Their bytes must be equal, except for
recorded times.

The processes are forks of this one, so that TensorFlow is imported only once. A
kill ends only the process, and not the converter that it started. KerasTuner
writes its `oracle.json` in place. Searches that it loses because of this are
counted separately.

A run can be split: `--minutes=10` stops after 10 minutes, and the same command
continues from the written results.
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
_LONGEST = 3600.0  # Seconds after which a process is considered stuck.


def start(stage, directory, kill_before=None):
    """Starts a job in a fork of this process.

    Args:
        stage: String, a key of `crash_stages.STAGES`.
        directory: Path of the job's directory.
        kill_before: Integer, the number of the file operation before which the
            process kills itself. Defaults to `None`, which never kills it.

    Returns:
        Integer, the process ID. The process logs its operations to
        `DIRECTORY.log`.
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
    """Logs the operations on files in a directory. See `start`."""
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
            return  # Reading does not change any file.
        count += 1
        name = re.sub(r"[0-9a-f]{12,}", "*", Path(paths[0]).name)
        os.write(log, f"{event} {name}\n".encode())
        if count == kill_before:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def finish(number, seconds=None):
    """Waits for a process to end, or kills it after a number of seconds.

    Returns:
        Integer, the exit code. It is `-9` if the process was killed.
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
    """Returns whether all processes of a session end within a few seconds."""
    for _ in range(600):
        if not memory_of(session):
            return True
        time.sleep(0.1)
    return False


def operations(directory):
    """Returns the file operations of the last process, in order."""
    return Path(f"{directory}.log").read_text("utf-8").splitlines()


def left_alone(stage):
    """Returns the files, operations and duration of an undisturbed run."""
    with tempfile.TemporaryDirectory() as folder:
        directory, begin = Path(folder, "run"), time.monotonic()
        if finish(start(stage, directory)):
            raise RuntimeError(Path(f"{directory}.said").read_text("utf-8"))
        seconds = time.monotonic() - begin
        return crash_stages.files(directory), operations(directory), seconds


def run_killed(stage, whole, first, most, generator):
    """Runs a job until it finishes, and kills it a limited number of times.

    Args:
        stage: String, a key of `crash_stages.STAGES`.
        whole: Tuple returned by `left_alone`.
        first: Integer, number of kills before this run.
        most: Integer, maximum number of kills in this run.
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
                # Alternates between the next operation and a random time.
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
            problem = "A converter still runs after its parent process ended."
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
    """Returns whether a kill made KerasTuner lose its own file.

    KerasTuner writes the file in place, and cannot load the search afterwards.
    """
    return "keras_tuner/src/engine/stateful.py" in problem and (
        "JSONDecodeError" in problem
    )


def parse():
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--kills", type=int, default=1000, help="Total number of kills."
    )
    parser.add_argument(
        "--kills_of_a_run",
        type=int,
        default=8,
        help="Maximum number of kills in one run of a job.",
    )
    parser.add_argument(
        "--stages",
        nargs="*",
        default=crash_stages.STAGES,
        help="Names of the jobs.",
    )
    parser.add_argument("--seed", type=int, default=0, help="Random seed.")
    parser.add_argument(
        "--minutes", type=float, default=None, help="Time limit, in minutes."
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS,
        help="Path of the JSON file to write.",
    )
    return parser.parse_args()


def read_runs(given, question):
    """Returns the earlier runs of the output file, if the settings match."""
    if not given.output.exists():
        return []
    found = json.loads(given.output.read_text("utf-8"))
    return found["runs"] if found["of"] == question else []


def main():
    """Kills jobs the requested number of times, and writes the differences."""
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
            print(f"{kills.total()} kills: run the command again to continue.")
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
    """Writes the results so far."""
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
