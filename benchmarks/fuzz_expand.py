"""Runs `tf_gems expand` on tickets with hostile network configs.

    python benchmarks/fuzz_expand.py --inputs=10000

Every input is a valid ticket whose network config has been modified, with a
correct checksum. See `hostile_tickets.py`. The command must either write a
model, or exit with a message and write no file. It must also respect the memory
limit, which the address space limit of the process enforces. The seed and the
number of an input determine it. The first 100 failing inputs are reported by
number.
"""

import collections
import contextlib
import io
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app
from absl import flags
from hostile_tickets import edit_config
from hostile_tickets import tickets

from tf_gems.command_line.main import main as command
from tf_gems.provenance import provenance

FLAGS = flags.FLAGS
flags.DEFINE_integer("inputs", 10_000, "Number of inputs.")
flags.DEFINE_integer("seed", 0, "Random seed of the modifications.")
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

MAX_BYTES = 1 << 28  # Passed to the command as `--max_bytes`.
# Address space, in bytes, that the process may use above its initial value. The
# allocators of the threads reserve part of it.
MAX_MORE = 1 << 30


def expand(ticket, target):
    """Runs the command on a ticket.

    Returns:
        Tuple `(verdict, message)`. The message describes a refusal or a
        failure.
    """
    said = io.StringIO()
    keras.utils.clear_session(free_memory=False)
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = command(
            [
                *("expand", str(ticket), f"--output={target}"),
                f"--max_bytes={MAX_BYTES}",
            ]
        )
    said = said.getvalue().strip()
    left = sorted(p.name for p in ticket.parent.iterdir())
    if code == 0 and left == [target.name, ticket.name]:
        target.unlink()
        return "written", ""
    if code != 1 or left != [ticket.name]:
        return "failed", f"code {code}, files {left}: {said:.300}"
    if "\n" in said or not said.isprintable() or "Received: " not in said:
        return "failed", f"not a one-line message: {said:.300}"
    return "refused", said


def main(_):
    """Runs the command on all inputs, and writes the results."""
    valid = tickets()[-1]
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    limit = pages * resource.getpagesize() + MAX_MORE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    counts, reasons, failures = collections.Counter(), collections.Counter(), []
    start = time.process_time()
    for number in range(FLAGS.inputs):
        random = np.random.default_rng([FLAGS.seed, number])
        with tempfile.TemporaryDirectory() as folder:
            ticket = Path(folder, "hostile.gem")
            ticket.write_bytes(edit_config(random, valid, valid))
            try:
                verdict, said = expand(ticket, Path(folder, "a.keras"))
            except BaseException as error:
                verdict, said = "failed", repr(error)
        counts[verdict] += 1
        if verdict == "failed":
            failures.append([number, said])
        elif said:
            reasons[" ".join(said.split()[1:8])] += 1
        if number % 1000 == 999:
            print(number + 1, len(failures), file=sys.stderr, flush=True)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = {
        "command": f"python benchmarks/{Path(sys.argv[0]).name} "
        f"--inputs={FLAGS.inputs} --seed={FLAGS.seed}",
        "provenance": provenance(),
        "inputs": FLAGS.inputs,
        **{name: counts[name] for name in ("written", "refused", "failed")},
        "max_bytes": MAX_BYTES,
        "limit_of_addresses_bytes": MAX_MORE,
        "memory_of_process_bytes": peak,
        "processor_seconds": round(time.process_time() - start, 1),
        "reasons": dict(reasons.most_common(40)),
        "failures": failures[:100],
    }
    text = json.dumps(report, indent=1) + "\n"
    if FLAGS.output:
        Path(FLAGS.output).write_text(text, "utf-8")
    print(text)
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
