"""Runs the cost benchmarks one after the other, and prints one table.

    python benchmarks/run_all.py

Each benchmark is a separate process, and can also be run directly. All of them
write JSON files to `benchmarks/results`, and `all.json` holds the rows of the
table. Ratios are medians over interleaved rounds. A run takes about ten minutes
on two idle cores. `--quick` takes fewer rounds, for a rough estimate. Peers
that are not installed are skipped, and the table says so.
"""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from absl import app
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_bool(
    "quick", False, "Whether to run fewer rounds. The ratios vary more."
)
flags.DEFINE_list("only", None, "Names of the benchmarks. Defaults to all.")
flags.DEFINE_string(
    "directory",
    str(Path(__file__).with_name("results")),
    "Directory of the JSON files to write.",
)

HERE = Path(__file__).resolve().parent


def benchmarks():
    """Returns `{name: (command, environment, required module)}`."""
    rounds = 3 if FLAGS.quick else 8
    step = ["step_cost.py", f"--rounds={rounds}", "--steps=2"]
    peers = ["peers.py", f"--rounds={rounds}"]
    turns = 1 if FLAGS.quick else 2
    runs = 30 if FLAGS.quick else 100
    legacy = {"TF_USE_LEGACY_KERAS": "1"}
    tfmot = "tensorflow_model_optimization"
    return {
        "step_cost": (step, {}, None),
        "step_cost_jit": ([*step, "--jit_compile"], {}, None),
        "step_cost_jax": (step, {"KERAS_BACKEND": "jax"}, "jax"),
        "freeze_cost": (["freeze_cost.py", "--repeats=2"], {}, None),
        "top_k_cost": (["top_k_cost.py", f"--rounds={rounds}"], {}, None),
        "memory": (["memory.py"], {}, "jax"),
        "devices_cost": (["devices_cost.py", f"--turns={turns}"], {}, None),
        "saved_model_cost": (
            ["saved_model_cost.py", f"--runs={runs}"],
            {},
            None,
        ),
        "peers_tf_gems": ([*peers, "--peer=tf_gems"], {}, None),
        "peers_tfmot": ([*peers, "--peer=tfmot"], legacy, tfmot),
        "peers_torch": ([*peers, "--peer=torch"], {}, "torch"),
    }


def lines_of(name, results):
    """Returns the table rows of a benchmark."""
    found = []

    def add(text, value, ratio=None):
        found.append({"line": text, "value": value, "ratio": ratio})

    for row in results:
        if name.startswith("step_cost"):
            place = {"jit": "TF jit", "jax": "JAX"}.get(name[10:], "TF graph")
            milliseconds = f"{1e3 * row['wall_seconds']:.1f} ms"
            text = f"ResNet-20 step, {place}: {row['step']}"
            add(text, milliseconds, row["wall_ratio"])
        elif name == "freeze_cost":
            whole = row["method"] in ("whole freeze", "keep_largest")
            if whole and row["values"] == "uniform" and row["scores"] >= 1e6:
                text = f"freeze, {row['method']}, {row['scores']:,} scores"
                add(text, f"{row['wall_seconds']:.3f} s")
        elif name == "top_k_cost":
            text = f"largest tenth of {row['scores']:,}: {row['name']}"
            add(text, f"{1e3 * row['seconds']:.1f} ms", row["ratio"])
        elif name == "memory" and row["witness"] == "variables":
            flags_ = row["flag_bytes_a_weight"]
            text = f"memory of parameters, mining, {row['optimizer']}"
            add(text, f"flags {flags_:.3f} B", row["ratio"])
        elif name == "memory":
            megabytes = f"{row['mining'] / 1e6:.0f} MB"
            add(f"peak of mining, {row['place']}", megabytes, row["ratio"])
        elif name == "devices_cost":
            speed = f"{row['images_a_second']:.0f} images/s"
            add(f"mining ResNet-20, {row['name']}", speed, row["ratio"])
        elif name == "saved_model_cost":
            smaller = row["dense_bytes"] / row["sparse_bytes"]
            network = row["network"].split()[0]
            text = f"SavedModel, {network} at {row['sparsity']}, "
            text += f"batch {row['batch']}: time"
            ratio = row["sparse_ms"] / row["dense_ms"]
            add(text, f"{smaller:.1f}x smaller", ratio)
        else:
            text = f"step of {name[6:]}: {row['name']}"
            add(text, f"{1e3 * row['seconds']:.1f} ms", row["ratio"])
    return found


def run(name, command, environment, needs):
    """Runs a benchmark, and returns its table rows."""
    if needs and importlib.util.find_spec(needs) is None:
        return [{"line": name, "value": f"needs {needs}"}]
    output = Path(FLAGS.directory, f"{name}.json").resolve()
    path = os.pathsep.join([str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    # The recorded command is relative to the root, without machine paths.
    root = HERE.parent
    process = subprocess.run(
        [
            *(sys.executable, f"{HERE.name}/{command[0]}", *command[1:]),
            f"--output={os.path.relpath(output, root)}",
        ],
        cwd=root,
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
    )
    if process.returncode:
        print(process.stderr[-2000:])
        return [{"line": name, "value": "failed"}]
    report = json.loads(output.read_text("utf-8"))
    return lines_of(name, report.get("results") or report["rows"])


def main(_):
    """Runs the benchmarks, prints the table, and writes it after each one."""
    sys.path.insert(0, str(HERE.parent))
    from tf_gems.provenance import provenance

    begin, table = time.time(), []
    for name, (command, environment, needs) in benchmarks().items():
        if FLAGS.only and name not in FLAGS.only:
            continue
        print(f"{time.time() - begin:5.0f} s  {name}", flush=True)
        table += run(name, command, environment, needs)
        report = {
            "benchmark": "all",
            "command": " ".join(["python", *sys.argv]),
            "provenance": provenance(),
            "seconds": round(time.time() - begin),
            "results": table,
        }
        Path(FLAGS.directory, "all.json").write_text(
            json.dumps(report, indent=1) + "\n", "utf-8"
        )
    print(f"\n{'':<62}{'ratio':>8}")
    for row in table:
        ratio = row.get("ratio")
        shown = "" if ratio is None else f"{ratio:.2f}"
        print(f"{row['line']:<46}{row['value']:>16}{shown:>8}")
    if any(row["value"] == "failed" for row in table):
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
