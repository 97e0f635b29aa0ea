"""Finds a rare gem on MNIST in LeNet-300-100.

python recipes/mnist.py --preset short
"""

import experiment
from absl import app
from settings import Settings
from settings import define_flags

PRESETS = {
    "paper": Settings("mnist", "lenet_300_100"),
    "short": Settings(
        "mnist",
        "lenet_300_100",
        mining_epochs=20,
        finetuning_epochs=20,
        learning_rate=1.0,
        regularization="auto",
        freeze_period=1,
        finetuning_learning_rate=0.1,
        finetuning_schedule="cosine",
    ),
    "smoke": Settings(
        "mnist",
        "lenet_300_100",
        target_sparsity=0.9,
        mining_epochs=4,
        finetuning_epochs=2,
        learning_rate=1.0,
        regularization="auto",
        freeze_period=1,
        finetuning_learning_rate=0.1,
        finetuning_schedule="cosine",
        fraction=0.1,
    ),
}

define_flags(PRESETS)

if __name__ == "__main__":
    app.run(lambda _: experiment.main(PRESETS))
