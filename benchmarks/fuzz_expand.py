"""Lets `tf_gems expand` build networks from hostile configs.

    python benchmarks/fuzz_expand.py --inputs=10000

Every input is a valid ticket whose config of a network has been changed, under
a right checksum; see `hostile_tickets.py`. The command may write a model, or
end with a message and no file; it may do nothing else, and not take more
memory: the process has a limit of addresses. An input follows from the seed
and its number; the first hundred that fail are reported by them.
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
flags.DEFINE_integer("seed", 0, "Seed of all changes.")
flags.DEFINE_string("output", None, "JSON file to write.")

MAX_BYTES = 1 << 28  # what the command may take, by its flag
# What the process may take beyond what it begins with, of addresses: the
# allocators of as many threads reserve some.
MAX_MORE = 1 << 30


def expand(ticket, target):
    """Runs the command.

    Returns:
        What came of it, in a word, and the message or what is wrong with it.
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
        return "failed", f"not a message in a line: {said:.300}"
    return "refused", said


def main(_):
    """Feeds all inputs, and writes what came of them."""
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
