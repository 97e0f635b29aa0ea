"""Finds a rare gem on CIFAR-10, by default in ResNet-20.

python recipes/cifar10.py --preset=short
python recipes/cifar10.py --network=mobilenet_v2 --target_sparsity=0.986
"""

import experiment
from absl import app
from settings import Settings
from settings import define_flags

PRESETS = {
    "paper": Settings.from_paper("cifar10", "resnet20", 0.9856),
    "short": Settings(
        "cifar10",
        "resnet20",
        mining_epochs=6,
        finetuning_epochs=6,
        learning_rate=1.5,
        regularization=2e-4,
        regularization_schedule="linear",
        stop_at_target=True,
        saturate_scores=True,
        freeze_period=1,
        finetuning_learning_rate=0.1,
        finetuning_schedule="cosine",
    ),
    "smoke": Settings(
        "cifar10",
        "resnet20",
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
