"""Writes the table of speed-ups that `tf_gems.plan` uses.

    python benchmarks/speed_table.py

Reads the results of `browser.py`, `native.py`, `mined_speed.py` and
`compaction.py` from `benchmarks/results`, and writes
`tf_gems/planning/speeds.json`. Run it again after any of these. It prints the
leave-one-out error of the table over the networks.
"""

import json
import math
from pathlib import Path

import browser  # must be the first import: silences TensorFlow
from absl import app
from absl import flags
from mined import network as mined_network
from perceptrons import PATTERNS
from perceptrons import perceptron

from tf_gems.planning import converted
from tf_gems.planning import speeds

FLAGS = flags.FLAGS
RESULTS = Path(__file__).with_name("results")
TABLE = Path(speeds.__file__).with_name("speeds.json")


def cases(name):
    """Yields tuples of target, pattern, name, build function and result row."""
    file = RESULTS / f"{name}.json"
    if not file.exists() or name == "compaction":
        return
    for row in json.loads(file.read_text("utf-8"))["results"]:
        if not row["sparsity"]:
            continue
        if name == "native":
            title = "-".join(map(str, row["network"]))
            build = lambda row=row: perceptron(row["network"])  # noqa: E731
            yield "native", PATTERNS[row["places"]], title, build, row
            continue
        alpha = row.get("alpha", 1.0)
        title = f"MobileNet {row['network']} x{alpha:g}, {row['size']} px"
        if name == "browser":
            build = lambda row=row: browser.network(  # noqa: E731
                row["network"], row["size"]
            )
        else:
            title += ", mined"
            build = lambda row=row: mined_network(  # noqa: E731
                row["network"], row["size"], row["classes"], row["alpha"]
            )
        yield "browser", "unstructured", title, build, row


def speedups(row):
    """Returns the speed-up of a row, with a lower and an upper bound.

    Other load on the machine affects medians more than the fastest times, so
    the smaller of both ratios is used.
    """
    speedup = min(row["speedup"], row["speedup_of_fastest"])
    low, high = row["speedup_quartiles"]
    return speedup, min(low, speedup), max(high, speedup)


def channels():
    """Returns networks with removed channels, by fraction of multiply-adds."""
    found = {}
    rows = json.loads((RESULTS / "compaction.json").read_text("utf-8"))
    for row in rows["results"]:
        if row["zeros"] != "random channels":
            continue
        before, after = row["multiply_adds"]
        network = found.setdefault(
            row["network"],
            {
                "name": row["network"],
                "features": [math.log(before)],
                "points": {0.0: [0.0, 1.0, 1.0, 1.0]},  # Nothing is removed.
            },
        )
        low, high = row["speedup_quartiles"]
        speedup = row["speedup"]
        point = [1 - after / before, speedup]
        point += [min(low, speedup), max(high, speedup)]
        network["points"][point[0]] = [round(value, 4) for value in point]
    return found


def main(_):
    """Writes the table, and prints its errors."""
    targets, sources, features = {}, [], {}
    targets["native"] = {"channel": channels()}
    for name in ("browser", "native", "mined_speed", "compaction"):
        for target, shape, title, build, row in cases(name):
            if title not in features:
                features[title] = converted.Converted(build()).features
            networks = targets.setdefault(target, {}).setdefault(shape, {})
            network = networks.setdefault(
                title,
                {
                    "name": title,
                    "features": features[title][target],
                    "points": {},
                },
            )
            point = [row["sparsity"], *speedups(row)]
            # Of methods with the same sparsity, the slower one is used.
            points = network["points"]
            known = points.get(point[0])
            if known is None or point[1] < known[1]:
                points[point[0]] = [round(value, 4) for value in point]
        file = RESULTS / f"{name}.json"
        if file.exists():
            found = json.loads(file.read_text("utf-8"))
            where = found["provenance"]
            sources.append(
                f"benchmarks/results/{name}.json, {where['date']}, "
                f"{where['processor']}, "
                + (
                    f"Chromium {found['chromium']}, LiteRT.js "
                    f"{found['litertjs']}"
                    if "chromium" in found
                    else f"LiteRT {found['ai_edge_litert']}"
                )
            )
    for shapes in targets.values():
        for shape, networks in shapes.items():
            shapes[shape] = [
                {
                    **network,
                    "features": [round(x, 8) for x in network["features"]],
                    "points": sorted(network["points"].values()),
                }
                for network in networks.values()
            ]
            error = speeds.Speeds(shapes[shape]).error
            print(f"{shape}: {len(networks)} networks, error {error:.0%}")
    table = {"sources": sources, "targets": targets}
    TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
