"""Reads damaged and hostile ticket files.

    python benchmarks/fuzz_ticket.py --inputs=1000000 --jobs=2

Every input is a valid file that has been modified. Checksums would reject most
modifications. Most kinds of modifications therefore correct the lengths and the
checksum, or modify the data before compression, to reach the code behind these
checks. The reader must either raise a `ValueError` or accept a valid ticket
(for example, one with another value or other metadata).

Memory is limited as well. The peak of each input is checked. In addition, the
memory of a process must not grow after its first 10,000 inputs, apart from the
peak of one input and the memory that Keras itself keeps for every network that
is built. The seed and the number of an input determine it. The first 100
failing inputs are reported by number.
"""

import collections
import concurrent.futures
import gc
import json
import multiprocessing
import os
import re
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
flags.DEFINE_integer("inputs", 1_000_000, "Number of inputs.")
flags.DEFINE_integer("seed", 0, "Random seed of the modifications.")
flags.DEFINE_integer("first", 0, "Number of the first input.")
flags.DEFINE_integer("jobs", 1, "Number of parallel processes.")
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

# Memory limit for reading a ticket, arrays included, in bytes.
MAX_BYTES = 1 << 23
MAX_PEAK = MAX_BYTES
# Bytes that Keras 3.15 itself keeps for each network built from a config.
KEPT_BY_KERAS = 2_048
PART = 10_000  # Number of inputs in one task of a process.
TIDY = 2_000  # Number of inputs between garbage collections.
# Address space, in bytes, that a process may use above its initial value.
MAX_MORE = 1 << 28


def check(contents, data):
    """Checks that the contents are a valid ticket that can be written again.

    Returns:
        String: `"accepted"`, or `"built"` or `"not built"` if the ticket holds
        a network config.
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
    """Returns whether the network of a ticket can be built."""
    shapes = [value.shape for value in ticket.weights.values()]
    keras.utils.clear_session(free_memory=False)
    try:
        model = network_of(ticket.config, shapes)
    except ValueError:
        return False
    assert [tuple(w.shape) for w in model.weights] == shapes
    return True


def shorten(error):
    """Returns an error message without the parts that vary between inputs."""
    letters = "".join(x for x in str(error)[:50] if not x.isdigit())
    words = letters.split("'")[0].split("(")[0].split()
    return " ".join(words) or type(error).__name__


def held_memory():
    """Returns the memory of the process after garbage collection, in bytes.

    File-backed pages are not counted. Swapped-out pages are counted.
    """
    gc.collect()
    status = Path("/proc/self/status").read_text("utf-8")
    found = re.findall(r"^(?:RssAnon|VmSwap):\s+(\d+) kB$", status, re.M)
    return 1024 * sum(map(int, found))


def read(data, path, through_file):
    """Reads an input from memory or from a file."""
    if not through_file:
        return ticket_file.decode(data, MAX_BYTES)
    path.write_bytes(data)
    return ticket_file.read(path, MAX_BYTES)


def trace(number, valid):
    """Returns the peak memory of the reader for an input, and its number."""
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


def largest_of(numbers, valid):
    """Returns the largest `trace`. Runs in a fork, since it keeps memory."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            largest = max(trace(number, valid) for number in numbers)
            os.write(writing, json.dumps(largest).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as file:
        found = file.read()
    os.waitpid(child, 0)
    return tuple(json.loads(found))


def feed(first, inputs):
    """Reads a range of inputs in a worker process.

    Args:
        first: Integer, number of the first input.
        inputs: Integer, number of inputs.

    Returns:
        Tuple of the counters of verdicts by kind, the counter of reasons, the
        list of failures, the largest peak memory, the CPU seconds, and the ID
        and memory of the process.
    """
    valid = tickets()
    for data in valid:
        check(ticket_file.decode(data, MAX_BYTES), data)
    counts = {kind.__name__: collections.Counter() for kind in KINDS}
    reasons, failures = collections.Counter(), []
    directory = tempfile.TemporaryDirectory()
    path = Path(directory.name) / "fuzz.gem"
    start = time.process_time()
    for number in range(first, first + inputs):
        if number % TIDY == 0:
            # Networks contain cycles. After a collection, only leaks remain.
            gc.collect()
        kind, data = make(FLAGS.seed, number, valid)
        through_file = number % 20 == 0
        try:
            contents, verdict = read(data, path, through_file), "accepted"
        except ValueError as error:
            contents, verdict = None, "refused"
            reasons[shorten(error.__cause__ or error)] += 1
        except Exception as error:
            contents, verdict = None, "failed"
            failures.append([number, kind, repr(error)])
        if contents is not None:
            try:
                verdict = check(contents, data)
            except Exception as error:
                verdict = "failed"
                failures.append([number, kind, f"accepted, but {error!r}"])
        counts[kind][verdict] += 1
    largest = largest_of(range(first, first + inputs, 20), valid)
    if largest[0] > MAX_PEAK:
        failures.append([largest[1], "all", f"took {largest[0]} bytes"])
    seconds = time.process_time() - start
    memory = os.getpid(), held_memory()
    return counts, reasons, failures, largest, seconds, memory


def begin(seed):
    """Initializes a worker process, and limits its address space."""
    FLAGS(["fuzz_ticket.py", f"--seed={seed}"])
    for data in tickets():  # TensorFlow allocates its threads and their memory.
        check(ticket_file.decode(data, MAX_BYTES), data)
    pages = int(Path("/proc/self/statm").read_text("utf-8").split()[0])
    limit = pages * resource.getpagesize() + MAX_MORE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(_):
    """Reads all inputs, and writes the results after each part."""
    firsts = range(FLAGS.first, FLAGS.first + FLAGS.inputs, PART)
    parts = [min(PART, FLAGS.first + FLAGS.inputs - f) for f in firsts]
    found, failed = [], 0
    with concurrent.futures.ProcessPoolExecutor(
        FLAGS.jobs,
        multiprocessing.get_context("spawn"),
        begin,
        [FLAGS.seed],
    ) as pool:
        for part in pool.map(feed, firsts, parts):
            found.append(part)
            report = summary(found)
            failed = report["failed"]
            text = json.dumps(report, indent=1) + "\n"
            if FLAGS.output:
                Path(FLAGS.output).write_text(text, "utf-8")
            print(report["inputs"], failed, file=sys.stderr, flush=True)
    print(text)
    if failed:
        sys.exit(1)


def summary(found):
    """Returns the report on the parts that have been read."""
    counts, reasons, failures, largest, seconds, memory = zip(
        *found, strict=True
    )
    failures, largest = sum(failures, []), max(largest)
    if largest[0] > MAX_PEAK:
        failures.append([largest[1], "all", f"took {largest[0]} bytes"])
    # One-time allocations occur in the first part. Later growth is a leak.
    by_process, built = {}, collections.Counter()
    for (process, held), part in zip(memory, counts, strict=True):
        if process in by_process:
            built[process] += sum(count["built"] for count in part.values())
        by_process.setdefault(process, []).append(held)
    growth = {name: parts[-1] - parts[0] for name, parts in by_process.items()}
    for name, grown in growth.items():
        if grown > MAX_PEAK + KEPT_BY_KERAS * built[name]:
            failures.append([None, "all", f"a process grew by {grown} bytes"])
    counts = {
        name: sum((part[name] for part in counts), collections.Counter())
        for name in counts[0]
    }
    total = sum(counts.values(), collections.Counter())
    return {
        "command": f"python benchmarks/{Path(sys.argv[0]).name} "
        f"--inputs={FLAGS.inputs} --seed={FLAGS.seed} --jobs={FLAGS.jobs}",
        "provenance": provenance(),
        "inputs": total.total(),
        "refused": total["refused"],
        "accepted": total["accepted"],
        "network_built": total["built"],
        "network_refused": total["not built"],
        "failed": len(failures),
        "max_bytes": MAX_BYTES,
        "limit_of_addresses_bytes": MAX_MORE,
        "largest_peak_bytes": largest[0],
        "largest_peak_of_input": largest[1],
        "growth_after_first_part_bytes": list(growth.values()),
        "networks_built_meanwhile": [built[name] for name in growth],
        "memory_of_processes_bytes": list(by_process.values()),
        "processor_seconds": round(sum(seconds), 1),
        "by_kind": {
            name: dict(sorted(count.items())) for name, count in counts.items()
        },
        "reasons": dict(sum(reasons, collections.Counter()).most_common(60)),
        "failures": failures[:100],
    }


if __name__ == "__main__":
    app.run(main)
