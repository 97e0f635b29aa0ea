"""The file that a benchmark leaves: its results, its command, what ran it."""

import json
import sys

from tf_gems.files import write_text
from tf_gems.provenance import provenance


def write_results(path, benchmark, results, **more):
    """Writes what a benchmark found, and how to find it again.

    Args:
        path: String or path of a JSON file; or `None`, which writes nothing.
        benchmark: String, the name of the benchmark.
        results: JSON-serializable value.
        **more: JSON-serializable values, what else there is to know.
    """
    if path is None:
        return
    report = {
        "benchmark": benchmark,
        **more,
        "command": " ".join(["python", *sys.argv]),
        "provenance": provenance(),
        "results": results,
    }
    write_text(path, json.dumps(report, indent=1) + "\n")
