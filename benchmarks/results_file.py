"""Writes the results, the command and the environment of a benchmark."""

import json
import sys

from tf_gems.files import write_text
from tf_gems.provenance import provenance


def write_results(path, benchmark, results, **more):
    """Writes the results of a benchmark and how to reproduce them.

    Args:
        path: String or path of a JSON file. If `None`, nothing is written.
        benchmark: String, name of the benchmark.
        results: JSON-serializable value.
        **more: Further JSON-serializable values to write.
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
