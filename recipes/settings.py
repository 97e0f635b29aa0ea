"""The settings of a run and their flags."""

import dataclasses
import functools
from pathlib import Path

import devices
import paper
from absl import flags

from tf_gems import zoo
from tf_gems.comparison.experiment import digest
from tf_gems.validation import check_choice
from tf_gems.validation import check_sparsity

NETWORKS = {
    "lenet_300_100": zoo.lenet_300_100,
    "conv4": zoo.conv4,
    "resnet20": zoo.resnet20,
    "resnet32": zoo.resnet32,
    "resnet32_double": functools.partial(zoo.resnet32, width=2),
    "mobilenet_v2": zoo.mobilenet_v2,
    "vgg16": zoo.vgg16,
    "wide_resnet28_2": zoo.wide_resnet28_2,
    "resnet18": zoo.resnet18,
    "resnet18_cifar": functools.partial(zoo.resnet18, stem="cifar"),
    "resnet50": zoo.resnet50,
    "resnet50_affine": functools.partial(zoo.resnet50, affine=True),
}
OPTIMIZERS = ("sgd", "nesterov", "adam")
_CHOICES = {
    "network": NETWORKS,
    "optimizer": OPTIMIZERS,
    "regularization_schedule": ("constant", "linear"),
    "masks": ("alive", "rounded"),
    "finetuning_optimizer": OPTIMIZERS,
    "finetuning_schedule": ("multistep", "cosine"),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings that affect the result of a run.

    Args:
        dataset: String, name for `tf_gems.datasets.load`.
        network: String, a name in `NETWORKS`.
        target_sparsity: Float in [0, 1), fraction of zeros.
        mining_epochs: Integer, number of mining epochs.
        finetuning_epochs: Integer, number of fine-tuning epochs.
        batch_size: Integer.
        optimizer: String, optimizer of the scores: `"sgd"` with momentum 0.9,
            `"nesterov"` or `"adam"`.
        learning_rate: Float, learning rate of the scores, with cosine decay to
            zero. `"auto"` trains the scores with
            `tf_gems.optimizers.ScoreOptimizer`.
        regularization: `"auto"`, or a float, the weight of the L2 penalty on
            the scores. See `tf_gems.GemMinerCallback`.
        regularization_schedule: String, the schedule of a float
            `regularization`: `"constant"`, or `"linear"` from zero.
        stop_at_target: Boolean, whether a float `regularization` is inactive
            while the target is met.
        saturate_scores: Boolean, whether the last freeze sets all alive scores
            to 1.
        freeze_period: Integer, number of epochs between freezes.
        masks: String, `"alive"` or `"rounded"`. See
            `tf_gems.SparseModel.ticket`.
        finetuning_optimizer: String, optimizer of the weights of all networks.
            See `optimizer`.
        finetuning_learning_rate: Float, learning rate of the ticket's weights.
        finetuning_schedule: String, `"multistep"` (a factor of 0.1 at each
            milestone) or `"cosine"`.
        first_milestone: Float in (0, 1), fraction of training.
        second_milestone: Float in (0, 1), not below `first_milestone`.
        dense_learning_rate: Float, learning rate of dense and random networks.
        weight_decay: Float, coupled weight decay of all trained weights.
        fraction: Float in (0, 1], fraction of the training set to use.
        image_size: Integer, or `None`. See `tf_gems.datasets.load`.
        weights: Path of pretrained weights from which every network starts, or
            `None`. See `tf_gems.load_pretrained`.
        seed: Integer, random seed.
    """

    dataset: str
    network: str
    target_sparsity: float = 0.9856
    mining_epochs: int = 150
    finetuning_epochs: int = 150
    batch_size: int = 128
    optimizer: str = "sgd"
    learning_rate: float | str = 0.1
    regularization: float | str = 1e-4
    regularization_schedule: str = "constant"
    stop_at_target: bool = False
    saturate_scores: bool = False
    freeze_period: int = 5
    masks: str = "alive"
    finetuning_optimizer: str = "sgd"
    finetuning_learning_rate: float = 0.01
    finetuning_schedule: str = "multistep"
    first_milestone: float = 8 / 15  # 80 of 150 epochs.
    second_milestone: float = 12 / 15
    dense_learning_rate: float = 0.1
    weight_decay: float = 1e-4
    fraction: float = 1.0
    image_size: int | None = None
    weights: str | None = None
    seed: int = 42

    def __post_init__(self):
        check_sparsity(self.target_sparsity)
        for name, choices in _CHOICES.items():
            check_choice(getattr(self, name), name, choices)
        if not 0 < self.first_milestone <= self.second_milestone < 1:
            raise ValueError(
                "Milestones must be fractions of training in order. Received: "
                f"first_milestone={self.first_milestone}, "
                f"second_milestone={self.second_milestone}. The defaults are "
                "8 / 15 and 12 / 15."
            )
        for name in ("regularization", "learning_rate"):
            if isinstance(getattr(self, name), str):
                check_choice(getattr(self, name), name, ("auto",))
        if self.learning_rate == "auto" and self.optimizer != "sgd":
            raise ValueError(
                "Without a learning rate, scores train with Adam. Received: "
                f"learning_rate='auto', optimizer='{self.optimizer}'. Leave "
                "`optimizer` out, or pass a number as `learning_rate`."
            )

    @classmethod
    def from_paper(cls, dataset, network, target_sparsity):
        """Returns the authors' settings. See `paper`.

        Args:
            dataset: String, name of the dataset.
            network: String, a name in `NETWORKS`.
            target_sparsity: Float in [0, 1), fraction of zeros.

        Raises:
            ValueError: If the authors have no such settings.
        """
        check_sparsity(target_sparsity)
        check_choice(network, "network", NETWORKS)
        return cls(**paper.find(dataset, network, target_sparsity))

    @property
    def epochs(self):
        """The training budget of every network."""
        return self.mining_epochs + self.finetuning_epochs

    def hash(self):
        """Returns a hash of these settings, twelve hexadecimal digits.

        Default values are excluded, so that new settings do not rename old
        runs.
        """
        settings = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }
        return digest(settings)[:12]


class _NumberOrAuto(flags.ArgumentParser):
    """Parses a number or the word `auto`."""

    def parse(self, argument):
        return argument if argument == "auto" else float(argument)


def _define_number_or_auto(name, default, help):
    flags.DEFINE(_NumberOrAuto(), name, default, help)


def define_flags(presets):
    """Defines a flag for each setting, and the flags of all recipes.

    Args:
        presets: Dict from names to `Settings`. The default is `"paper"`.
    """
    flags.DEFINE_enum(
        "preset",
        "paper",
        list(presets),
        "Name of the preset. Other flags override its settings.",
    )
    define = {
        str: flags.DEFINE_string,
        str | None: flags.DEFINE_string,
        int: flags.DEFINE_integer,
        int | None: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        float | str: _define_number_or_auto,
        bool: flags.DEFINE_bool,
    }
    for field in dataclasses.fields(Settings):
        if field.name != "dataset":
            value = getattr(presets["paper"], field.name)
            define[field.type](
                field.name,
                None,
                f"Overrides the preset. The paper uses {value}.",
            )
    flags.DEFINE_string(
        "data_dir", None, "Directory of the TFDS datasets, or of the images."
    )
    flags.DEFINE_bool(
        "download", False, "Whether to download missing datasets with TFDS."
    )
    flags.DEFINE_string(
        "output_dir",
        str(Path(__file__).parents[1] / "savedmodels"),
        "Parent directory of the run's directory.",
    )
    devices.define_flags()


def read_flags(presets):
    """Returns the settings that the flags describe, and the command line.

    The preset "paper" is the row of the authors' table for the given network
    and sparsity, if the table contains the dataset of the recipe.

    Args:
        presets: Dict, as passed to `define_flags`.

    Returns:
        Tuple of `Settings` and the equivalent command as a string.
    """
    values = flags.FLAGS
    given = {
        field.name: values[field.name].value
        for field in dataclasses.fields(Settings)
        if field.name != "dataset" and values[field.name].present
    }
    preset = presets[values.preset]
    if values.preset == "paper" and preset.dataset in paper.DATASETS:
        preset = Settings.from_paper(
            preset.dataset,
            given.get("network", preset.network),
            given.get("target_sparsity", preset.target_sparsity),
        )
    settings = dataclasses.replace(preset, **given)
    command = [f"python recipes/{settings.dataset}.py"]
    command += [f"--preset={values.preset}"]
    command += [f"--{name}={value}" for name, value in given.items()]
    return settings, " ".join(command)
