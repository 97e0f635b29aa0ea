"""Feeds damaged and hostile ticket files to their reader.

    python benchmarks/fuzz_ticket.py --inputs=400000 --output=fuzz_ticket.json

Every input is a valid file that has been changed. Checksums stop most changes,
so most kinds of them mend the lengths and the checksum of what they change, or
change what lies under the compression, to reach the code behind. The reader
may refuse an input by a ValueError, or accept what is a ticket after all (as
with another value, or other metadata); it may do nothing else, and not take
much memory, neither at once nor by and by: the most that the process has had
may not rise any more after the first tenth of the inputs, within what one of
them may take. An input follows from the seed and its number; the first hundred
that fail are reported by them.
"""

import collections
import json
import os
import resource
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app
from absl import flags
from hostile_tickets import KINDS
from hostile_tickets import make
from hostile_tickets import tickets

from tf_gems import ticket_file
from tf_gems.network_config import network_of
from tf_gems.provenance import provenance
from tf_gems.ticket import Ticket

FLAGS = flags.FLAGS
flags.DEFINE_integer("inputs", 400_000, "Number of inputs.")
flags.DEFINE_integer("seed", 0, "Seed of all changes.")
flags.DEFINE_integer("first", 0, "Number of the first input.")
flags.DEFINE_string("output", None, "JSON file to write.")

# What reading a ticket may take here, with all arrays.
MAX_BYTES = 1 << 23
MAX_PEAK = MAX_BYTES


def check(contents, data):
    """Raises an error unless contents are a ticket that is written again.

    Returns:
        `"accepted"`; or, if it tells a network, whether that was built.
    """
    ticket = Ticket(
        contents.masks, contents.weights, contents.metadata, contents.config
    )
    for entry in contents.entries:
        value = ticket.weights[entry.path]
        assert value.shape == entry.shape and value.dtype == entry.dtype
        if entry.kept is not None:
            mask = ticket.masks[entry.path]
            assert np.count_nonzero(mask) == entry.kept
            assert not np.any(value[~mask])
    assert sum(contents.lengths.values()) == len(data)
    parts = ticket.masks, ticket.weights, ticket.metadata
    again = ticket_file.decode(ticket_file.encode(*parts, config=ticket.config))
    for path, value in ticket.weights.items():
        assert again.weights[path].tobytes() == value.tobytes()
        assert again.weights[path].shape == value.shape
    for path, mask in ticket.masks.items():
        assert np.array_equal(again.masks[path], mask)
    assert again.metadata == ticket.metadata
    assert again.config == ticket.config
    if ticket.config is not None:
        return "built" if build(ticket) else "not built"
    return "accepted"


def build(ticket):
    """Returns whether the network of a ticket is built, and not refused."""
    shapes = [value.shape for value in ticket.weights.values()]
    keras.utils.clear_session(free_memory=False)
    try:
        model = network_of(ticket.config, shapes)
    except ValueError:
        return False
    assert [tuple(w.shape) for w in model.weights] == shapes
    return True


def shorten(error):
    """Returns an error's message without what differs between inputs."""
    letters = "".join(x for x in str(error)[:50] if not x.isdigit())
    words = letters.split("'")[0].split("(")[0].split()
    return " ".join(words) or type(error).__name__


def largest_memory():
    """Returns the most bytes that the process has had so far."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def read(data, path, through_file):
    """Reads an input, in memory or through a file."""
    if not through_file:
        return ticket_file.decode(data, MAX_BYTES)
    path.write_bytes(data)
    return ticket_file.read(path, MAX_BYTES)


def trace(number, valid):
    """Returns the most bytes that the reader had at once, and for what."""
    _, data = make(FLAGS.seed, number, valid)
    tracemalloc.start()
    try:
        ticket_file.decode(data, MAX_BYTES)
    except ValueError:
        pass
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return peak, number


def main(_):
    """Feeds all inputs, and writes how many were refused."""
    valid = tickets()
    for data in valid:
        check(ticket_file.decode(data, MAX_BYTES), data)
    counts = collections.defaultdict(collections.Counter)
    reasons, failures = collections.Counter(), []
    directory = tempfile.TemporaryDirectory()
    path = Path(directory.name) / "fuzz.gem"
    start, memory = time.process_time(), [largest_memory()]
    for number in range(FLAGS.first, FLAGS.first + FLAGS.inputs):
        # What grows once does so with the first ones; the rest would be a leak.
        if (number - FLAGS.first) * 10 // FLAGS.inputs == len(memory):
            memory.append(largest_memory())
        kind, data = make(FLAGS.seed, number, valid)
        through_file = number % 20 == 0
        try:
            contents, verdict = read(data, path, through_file), "accepted"
        except ValueError as error:
            contents, verdict = None, "refused"
            reasons[shorten(error.__cause__ or error)] += 1
        except BaseException as error:
            contents, verdict = None, "failed"
            failures.append([number, kind, repr(error)])
            if isinstance(error, KeyboardInterrupt):
                break
        if contents is not None:
            try:
                verdict = check(contents, data)
            except Exception as error:
                verdict = "failed"
                failures.append([number, kind, f"accepted, but {error!r}"])
        counts[kind][verdict] += 1
        if number % 20_000 == 0:
            print(number, len(failures), file=sys.stderr, flush=True)
    memory.append(largest_memory())
    growth = memory[-1] - memory[1]
    if growth > MAX_PEAK:
        failures.append([None, "all", f"the process grew by {growth} bytes"])
    largest = max(
        trace(number, valid)
        for number in range(FLAGS.first, FLAGS.first + FLAGS.inputs, 5)
    )
    if largest[0] > MAX_PEAK:
        failures.append([largest[1], "all", f"took {largest[0]} bytes"])
    total = sum(counts.values(), collections.Counter())
    found = {
        "command": f"python benchmarks/{Path(sys.argv[0]).name} "
        f"--inputs={FLAGS.inputs} --seed={FLAGS.seed}",
        "provenance": provenance(),
        "inputs": total.total(),
        "refused": total["refused"],
        "accepted": total["accepted"],
        "network_built": total["built"],
        "network_refused": total["not built"],
        "failed": len(failures),
        "max_bytes": MAX_BYTES,
        "largest_peak_bytes": largest[0],
        "largest_peak_of_input": largest[1],
        "growth_in_first_tenth_bytes": memory[1] - memory[0],
        "growth_after_it_bytes": growth,
        "memory_by_tenths_bytes": memory,
        "processor_seconds": round(time.process_time() - start, 1),
        "by_kind": {
            kind.__name__: dict(sorted(counts[kind.__name__].items()))
            for kind in KINDS
        },
        "reasons": dict(reasons.most_common(60)),
        "failures": failures[:100],
    }
    text = json.dumps(found, indent=1) + "\n"
    if FLAGS.output:
        Path(FLAGS.output).write_text(text, "utf-8")
    print(text)
    directory.cleanup()
    if failures:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
