"""Finds a rare gem on CIFAR-100 in ResNet-32 of double width.

python recipes/cifar100.py --target_sparsity=0.98
"""

import experiment
from absl import app
from settings import Settings
from settings import define_flags

PRESETS = {
    "paper": Settings.from_paper("cifar100", "resnet32_double", 0.95),
    "smoke": Settings(
        "cifar100",
        "resnet32",
        target_sparsity=0.9,
        mining_epochs=2,
        finetuning_epochs=1,
        learning_rate=0.5,
        regularization="auto",
        freeze_period=1,
        fraction=0.02,
    ),
}

define_flags(PRESETS)

if __name__ == "__main__":
    app.run(lambda _: experiment.main(PRESETS))
