"""Finds a rare gem on scikit-learn's digits in minutes, without a download.

python recipes/digits.py --preset short
"""

import experiment
from absl import app
from settings import Settings
from settings import define_flags

PRESETS = {
    "paper": Settings(
        "digits",
        "lenet_300_100",
        target_sparsity=0.95,
        mining_epochs=100,
        finetuning_epochs=100,
        batch_size=64,
    ),
    "short": Settings(
        "digits",
        "lenet_300_100",
        target_sparsity=0.98,
        mining_epochs=60,
        finetuning_epochs=30,
        batch_size=64,
        learning_rate=1.0,
        regularization="auto",
        freeze_period=2,
        finetuning_learning_rate=0.1,
        finetuning_schedule="cosine",
    ),
    "smoke": Settings(
        "digits",
        "lenet_300_100",
        target_sparsity=0.9,
        mining_epochs=4,
        finetuning_epochs=2,
        batch_size=64,
        learning_rate=1.0,
        regularization="auto",
        freeze_period=1,
        finetuning_learning_rate=0.1,
        finetuning_schedule="cosine",
    ),
}

define_flags(PRESETS)

if __name__ == "__main__":
    app.run(lambda _: experiment.main(PRESETS))
