"""Writes the results, the command and the environment of a benchmark."""

import json
import sys
from pathlib import Path

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


def run_missing(path, benchmark, cells, keys, measure):
    """Measures the cells that a results file lacks, and writes it each time.

    Args:
        path: String or path of a JSON file; or `None`, which measures all cells
            and writes nothing.
        benchmark: String, the name of the benchmark.
        cells: Iterable of tuples, the values of `keys` in a row.
        keys: Tuple of strings, the keys of a row that identify it.
        measure: Function from the values of a cell to its row, a dict.

    Returns:
        List of all rows, in the order in which they were measured.
    """
    rows = []
    if path and Path(path).exists():
        rows = json.loads(Path(path).read_text("utf-8"))["results"]
    known = {tuple(row[key] for key in keys) for row in rows}
    for cell in cells:
        if cell not in known:
            rows.append(measure(*cell))
            print(rows[-1], flush=True)
            write_results(path, benchmark, rows)
    return rows
