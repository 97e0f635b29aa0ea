"""Compares all pruning methods on one network, with equal training budgets.

    python recipes/compare.py --preset=smoke
    python recipes/compare.py --preset=smoke --backend=jax
    python recipes/compare.py --preset=mnist --workers=2
    python recipes/compare.py --preset=cifar10 --strategy=mirrored

The comparison consists of cells, one for each method, sparsity and seed. All
processes with the same --output_dir share the cells, so the command can be
started on several devices. With --strategy=mirrored, all devices of a machine
train each cell together instead.
"""

import dataclasses
import subprocess
import sys
from pathlib import Path

import quiet_tensorflow  # noqa: F401 - must precede imports of TensorFlow

# isort: split
import keras
from absl import app
from absl import flags
from devices import Devices
from devices import arguments_without
from devices import define_flags
from resuming import resumable
from settings import NETWORKS

import tf_gems as gems
from tf_gems import datasets
from tf_gems import methods
from tf_gems.comparison import pictures
from tf_gems.comparison.comparison import refuse_others
from tf_gems.comparison.experiment import digest
from tf_gems.targets import check_directory
from tf_gems.targets import check_names


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings that affect the result of a comparison.

    Args:
        dataset: String, name for `tf_gems.datasets.load`.
        network: String, a name in `settings.NETWORKS`.
        epochs: Integer, total number of epochs of search and fine-tuning.
        search_epochs: Integer, number of search epochs of methods that train.
        rounds: Integer, number of rounds of methods that rewind. The rounds
            share `search_epochs`.
        sparsities: Tuple of floats, fractions of zeros.
        seeds: Tuple of integers.
        checked: Float, sparsity at which tickets are also sanity checked, or
            `None`.
        names: Tuple of method names. Defaults to all methods.
        batch_size: Integer.
        learning_rate: Float, learning rate of the weights, with cosine decay to
            zero.
        score_learning_rate: Float, learning rate of the scores, with the same
            decay.
        weight_decay: Float, coupled weight decay.
        fraction: Float in (0, 1], fraction of the training set to use.
        steps_per_execution: Integer. See `keras.Model.compile`.
    """

    dataset: str
    network: str
    epochs: int
    search_epochs: int
    rounds: int
    sparsities: tuple
    seeds: tuple = (0, 1, 2)
    checked: float | None = None
    names: tuple = ()
    batch_size: int = 128
    learning_rate: float = 0.1
    score_learning_rate: float = 1.0
    weight_decay: float = 1e-4
    fraction: float = 1.0
    steps_per_execution: int = 16

    def directory(self, output_dir):
        """Returns the output directory of these settings.

        Settings that only select cells are not part of the name, so a larger
        comparison finds the cells of a smaller one.
        """
        settings = dataclasses.asdict(self)
        for name in ("sparsities", "seeds", "checked", "names"):
            del settings[name]
        output_dir = check_directory(output_dir, "output_dir")
        return output_dir / f"compare-{self.dataset}-{digest(settings)[:8]}"


PRESETS = {
    "smoke": Settings(
        "digits",
        "lenet_300_100",
        epochs=4,
        search_epochs=2,
        rounds=2,
        sparsities=(0.9,),
        seeds=(0,),
        batch_size=64,
    ),
    "digits": Settings(
        "digits",
        "lenet_300_100",
        epochs=60,
        search_epochs=40,
        rounds=8,
        sparsities=(0.9, 0.95, 0.98),
        checked=0.98,
        batch_size=64,
    ),
    "mnist": Settings(
        "mnist",
        "lenet_300_100",
        epochs=20,
        search_epochs=10,
        rounds=10,
        sparsities=(0.95, 0.9856, 0.995),
        checked=0.9856,
    ),
    "cifar10": Settings(
        "cifar10",
        "resnet20",
        epochs=12,
        search_epochs=6,
        rounds=6,
        sparsities=(0.9856,),
        seeds=(0,),
        names=(
            "gem_miner",
            "snip",
            "synflow",
            "random_uniform",
            "random_erk",
            "edge_popup",
            "imp",
        ),
        score_learning_rate=1.5,
        steps_per_execution=1,
    ),
}


_LISTS = {"sparsities": float, "seeds": int, "names": str}


def all_methods(settings):
    """Returns the methods by name, with the settings of this network."""
    epochs, rate = settings.search_epochs, settings.learning_rate
    weights = {"epochs": epochs, "learning_rate": rate}
    scores = {
        "epochs": epochs,
        "learning_rate": settings.score_learning_rate,
        "freeze_period": 1,
    }
    rounds = {
        "epochs": epochs // settings.rounds,
        "rounds": settings.rounds,
        "learning_rate": rate,
        "distribution": "global",  # As in the papers.
    }
    arguments = {
        "gem_miner": scores,
        "edge_popup": scores,
        "edge_popup_global": {
            **scores,
            "distribution": "global",
            "gradual": True,
        },
        "imp": rounds,
        "lr_rewinding": rounds,
        "snip": {"batches": 10},
        "grasp": {"batches": 10},
        "synflow": {},
        "prospr": {},
        "magnitude": {"distribution": "global"},
        "magnitude_uniform": {"distribution": "uniform"},
        "gradual_magnitude": {**weights, "distribution": "global"},
        "random_uniform": {"distribution": "uniform"},
        "random_erk": {"distribution": "erk"},
        "random_smart_ratio": {"distribution": "smart_ratio"},
        "rigl": weights,
        "set": weights,
    }
    names = settings.names or arguments

    def method(name):
        known = max(k for k in methods.METHODS if name.startswith(k))
        return lambda sparsity: methods.get(
            known, target_sparsity=sparsity, **arguments[name]
        )

    return {name: method(name) for name in names}


def run(settings, output_dir, data_dir=None, download=False, devices=None):
    """Runs the comparison. Returns it and its directory."""
    devices = devices or Devices()
    devices.check_batch(settings.batch_size)
    directory = settings.directory(output_dir)
    refuse_others(directory)
    check_names(directory, pictures.NAMES)
    data = datasets.load(
        settings.dataset, data_dir, settings.fraction, download
    )

    def build(seed):
        return NETWORKS[settings.network](
            data.image_shape,
            data.classes,
            kernel_regularizer=keras.regularizers.L2(settings.weight_decay / 2),
        )

    checks = {}
    if settings.checked:
        checks = {settings.checked: ("shuffled", "reinitialized")}
    comparison = gems.compare(
        build,
        lambda seed: data.batches(settings.batch_size, seed),
        data.test_batches(500, devices.replicas),
        all_methods(settings),
        settings.sparsities,
        settings.epochs,
        directory,
        keras.optimizers.SGD(settings.learning_rate, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        learning_rate=settings.learning_rate,
        seeds=settings.seeds,
        checks=checks,
        steps_per_execution=settings.steps_per_execution,
        strategy=devices.strategy,
    )
    return comparison, directory


def main(_):
    """Runs the comparison that the flags describe, and plots it."""
    values = flags.FLAGS
    if values.strategy == "multiworker":
        raise app.UsageError(
            "Workers share the cells of a comparison, and not the batches. "
            f"Received: --strategy={values.strategy}. Leave it out: start the "
            "same command on every worker, or give --workers."
        )
    if values.strategy != "none" and values.workers > 1:
        raise app.UsageError(
            "Use either --strategy or --workers, and not both. "
            f"Received: --strategy={values.strategy} --workers="
            f"{values.workers}. Leave one out."
        )
    devices = Devices(values.strategy)
    settings = PRESETS[values.preset]
    command = [f"python recipes/compare.py --preset={values.preset}"]
    for name, kind in _LISTS.items():
        if values[name].present:
            given = values[name].value
            command.append(f"--{name}={','.join(given)}")
            settings = dataclasses.replace(
                settings, **{name: tuple(map(kind, given))}
            )
    if values["fraction"].present:
        command.append(f"--fraction={values.fraction}")
        settings = dataclasses.replace(settings, fraction=values.fraction)
    if values.strategy != "none":
        command.append(f"--strategy={values.strategy}")
    alike = [sys.executable, sys.argv[0], *arguments_without("workers")]
    others = [
        subprocess.Popen(alike, stdout=subprocess.DEVNULL)
        for _ in range(1, values.workers)
    ]
    with resumable():
        try:
            comparison, directory = run(
                settings,
                values.output_dir,
                values.data_dir,
                values.download,
                devices,
            )
        finally:
            for other in others:  # They have the same results.
                other.wait()
    comparison = dataclasses.replace(
        comparison,
        settings={**comparison.settings, **dataclasses.asdict(settings)},
        provenance={**comparison.provenance, "command": " ".join(command)},
    )
    comparison.save(directory)
    comparison.draw(directory)
    print(f"\n{comparison.render()}\n\nplots: {directory}")


define_flags()
flags.DEFINE_enum(
    "preset", "digits", list(PRESETS), "Name of the dataset and its settings."
)
for _name in _LISTS:
    flags.DEFINE_list(_name, None, "Overrides the setting of the preset.")
flags.DEFINE_float(
    "fraction",
    None,
    "Fraction of the training set to use. Overrides the preset.",
)
flags.DEFINE_string("data_dir", None, "Directory of the TFDS datasets.")
flags.DEFINE_bool(
    "download", False, "Whether to download missing datasets with TFDS."
)
flags.DEFINE_string(
    "output_dir",
    str(Path(__file__).parents[1] / "savedmodels"),
    "Parent directory of the comparison's directory.",
)

if __name__ == "__main__":
    app.run(main)
