"""The settings of a run, and the flags that give them."""

import dataclasses
import functools
import hashlib
import json
from pathlib import Path

from absl import flags

from tf_gems import zoo
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
}
_CHOICES = {
    "network": NETWORKS,
    "regularization_schedule": ("constant", "linear"),
    "finetuning_schedule": ("multistep", "cosine"),
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """Everything that a run's result depends on.

    Args:
        dataset: Name for `tf_gems.datasets.load`.
        network: Name among `NETWORKS`.
        target_sparsity: Float in [0, 1), the fraction of zeros.
        mining_epochs: Integer.
        finetuning_epochs: Integer.
        batch_size: Integer.
        learning_rate: Float, of the scores; cosine decay to zero.
        regularization: Float, L2 weight on the scores.
        regularization_schedule: `"constant"`, or `"linear"` from zero.
        gated: Whether the penalty rests at the target, see
            `tf_gems.GemMinerCallback`.
        freeze_period: Integer, epochs.
        finetuning_learning_rate: Float, of the ticket's weights.
        finetuning_schedule: `"multistep"` (a tenth at 8/15 and at 12/15 of
            training) or `"cosine"`.
        dense_learning_rate: Float, of dense and random networks.
        weight_decay: Float, coupled, on all weights that train.
        fraction: Float in (0, 1], part of the training set.
        seed: Integer.
    """

    dataset: str
    network: str
    target_sparsity: float = 0.9856
    mining_epochs: int = 150
    finetuning_epochs: int = 150
    batch_size: int = 128
    learning_rate: float = 0.1
    regularization: float = 1e-4
    regularization_schedule: str = "constant"
    gated: bool = False
    freeze_period: int = 5
    finetuning_learning_rate: float = 0.01
    finetuning_schedule: str = "multistep"
    dense_learning_rate: float = 0.1
    weight_decay: float = 1e-4
    fraction: float = 1.0
    seed: int = 42

    def __post_init__(self):
        check_sparsity(self.target_sparsity)
        for name, choices in _CHOICES.items():
            check_choice(getattr(self, name), name, choices)

    @property
    def epochs(self):
        """The training budget of every network."""
        return self.mining_epochs + self.finetuning_epochs

    def hash(self):
        """Returns twelve hexadecimal digits that name these settings.

        Defaults do not count: a setting that is added names old runs alike.
        """
        settings = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }
        text = json.dumps(settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def define_flags(presets):
    """Defines a flag for each setting, and those of every recipe.

    Args:
        presets: Dict from names to `Settings`; `"paper"` is the default.
    """
    flags.DEFINE_enum(
        "preset", "paper", list(presets), "Settings that the flags override."
    )
    define = {
        str: flags.DEFINE_string,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
        bool: flags.DEFINE_bool,
    }
    for field in dataclasses.fields(Settings):
        if field.name != "dataset":
            value = getattr(presets["paper"], field.name)
            define[field.type](
                field.name, None, f"Default: the preset's. Paper: {value}."
            )
    flags.DEFINE_string("data_dir", None, "Directory of TFDS.")
    flags.DEFINE_bool("download", False, "Whether TFDS may download.")
    flags.DEFINE_string(
        "output_dir",
        str(Path(__file__).parents[1] / "savedmodels"),
        "Directory in which the run's directory is made.",
    )


def read_flags(presets):
    """Returns the settings that the flags describe, and the command line.

    Args:
        presets: As given to `define_flags`.

    Returns:
        `Settings`, and what one would type to give them.
    """
    values = flags.FLAGS
    given = {
        field.name: values[field.name].value
        for field in dataclasses.fields(Settings)
        if field.name != "dataset" and values[field.name].present
    }
    settings = dataclasses.replace(presets[values.preset], **given)
    command = [f"python recipes/{settings.dataset}.py"]
    command += [f"--preset={values.preset}"]
    command += [f"--{name}={value}" for name, value in given.items()]
    return settings, " ".join(command)
