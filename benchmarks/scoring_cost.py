"""Measures the cost of scoring a network at initialization.

    python benchmarks/scoring_cost.py --output=scoring_cost.json

SNIP, GraSP and SynFlow score the 25.6 million weights of a ResNet-50. They
alternate with forward and backward passes on the same batch, so that other load
on the machine affects all of them equally. Each call traces its functions
again, as it does for a user. Each method therefore also runs with more batches
or rounds: the difference is the cost of one batch or round, and the remainder
is the startup cost. The table shows medians over the turns.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from absl import app
from absl import flags
from results_file import write_results

import tf_gems as gems
from tf_gems.methods.gradients import compiled
from tf_gems.methods.gradients import gradient
from tf_gems.methods.method import present_weights

FLAGS = flags.FLAGS
flags.DEFINE_integer("turns", 3, "Number of turns.")
flags.DEFINE_integer(
    "passes", 5, "Number of forward and backward passes between two methods."
)
flags.DEFINE_integer("batch_size", 32, "Batch size.")
flags.DEFINE_integer(
    "image_size", 64, "Height and width of the images, in pixels."
)
# Large enough to exceed the noise of tracing, about one second.
flags.DEFINE_integer("batches", 11, "Larger number of batches.")
flags.DEFINE_integer("rounds", 100, "Larger number of SynFlow rounds.")
flags.DEFINE_string("output", None, "Path of the JSON file to write.")

SPARSITY = 0.98
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def make_model():
    """Returns a compiled ResNet-50 with masks."""
    network = keras.applications.ResNet50(
        weights=None,
        input_shape=(FLAGS.image_size, FLAGS.image_size, 3),
        classifier_activation=None,
    )
    sparse = gems.SparseModel(network, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    sparse.compile("sgd", loss)
    return sparse


def functions(model, data):
    """Returns the functions to time, by name and number of units."""
    weights = present_weights(model)
    snip = gems.methods.Snip(SPARSITY)
    backward = compiled(gradient(snip.loss_of(model)))

    def one_pass():
        return [np.asarray(g) for g in backward(weights, *data[0])]

    one_pass()  # Traces the function.
    found = {("forward_backward", 1): one_pass}
    for batches in (1, FLAGS.batches):
        for kind in (gems.methods.Snip, gems.methods.Grasp):
            method = kind(SPARSITY, batches=batches)
            name = kind.__name__.lower()
            found[name, batches] = lambda m=method: m.scores(model, data)
    for rounds in (1, FLAGS.rounds):
        method = gems.methods.SynFlow(SPARSITY, rounds=rounds)
        found["synflow", rounds] = lambda m=method: m.scores(model, None)
    return found


def measure(found):
    """Returns the seconds of every turn, `{key: {clock: [...]}}`."""
    seconds = {key: {clock: [] for clock in CLOCKS} for key in found}
    passes = [("forward_backward", 1)] * FLAGS.passes
    others = [key for key in found if key not in passes]
    for turn in range(FLAGS.turns):
        # Passes are short, so more of them run, between all other functions.
        for key in [k for other in others for k in (*passes, other)]:
            begin = {clock: now() for clock, now in CLOCKS.items()}
            found[key]()
            for clock, now in CLOCKS.items():
                seconds[key][clock].append(now() - begin[clock])
            name, units = key
            wall = seconds[key]["wall"][-1]
            print(f"turn {turn}: {name} {units}: {wall:.1f} s", flush=True)
    return seconds


def summarize(seconds):
    """Returns the median times of a call, and of one batch or round."""
    medians = {
        key: {clock: statistics.median(v) for clock, v in clocks.items()}
        for key, clocks in seconds.items()
    }
    base = medians["forward_backward", 1]
    rows = []
    for (name, units), total in medians.items():
        row = {"method": name, "batches_or_rounds": units}
        for clock in CLOCKS:
            row[f"{clock}_seconds"] = total[clock]
            row[f"{clock}_passes"] = total[clock] / base[clock]
            if units > 1:
                # One value per turn, so that the list shows the noise.
                pairs = zip(
                    seconds[name, units][clock],
                    seconds[name, 1][clock],
                    strict=True,
                )
                ones = [(more - one) / (units - 1) for more, one in pairs]
                one = statistics.median(ones)
                row[f"{clock}_seconds_of_one"] = one
                row[f"{clock}_passes_of_one"] = one / base[clock]
                row[f"{clock}_seconds_of_one_of_turns"] = ones
        row["wall_of_turns"] = seconds[name, units]["wall"]
        rows.append(row)
    return rows


def main(_):
    """Runs the benchmark, prints a table and writes JSON."""
    keras.utils.set_random_seed(0)
    random = np.random.default_rng(0)
    model = make_model()
    shape = (FLAGS.batch_size, FLAGS.image_size, FLAGS.image_size, 3)
    data = [
        (
            random.normal(size=shape).astype("float32"),
            random.integers(0, 1000, FLAGS.batch_size),
        )
        for _ in range(FLAGS.batches)
    ]
    load = os.getloadavg()
    rows = summarize(measure(functions(model, data)))
    print(
        f"{'method':<18}{'units':>6}{'wall s':>9}{'passes':>8}"
        f"{'one, s':>9}{'passes':>8}"
    )
    for row in rows:
        one = [
            row.get(f"wall_{unit}_of_one", float("nan"))
            for unit in ("seconds", "passes")
        ]
        print(
            f"{row['method']:<18}{row['batches_or_rounds']:>6}"
            f"{row['wall_seconds']:>9.2f}{row['wall_passes']:>8.1f}"
            f"{one[0]:>9.2f}{one[1]:>8.2f}"
        )
    write_results(
        FLAGS.output,
        "scoring_cost",
        rows,
        network="resnet50",
        weights=model.gem.size,
        load_average_before_and_after=[load[0], os.getloadavg()[0]],
        settings={
            name: FLAGS[name].value
            for name in (
                *("turns", "passes", "batch_size", "image_size"),
                *("batches", "rounds"),
            )
        },
    )


if __name__ == "__main__":
    app.run(main)
