"""Finds a rare gem in a pretrained ResNet-50 on Caltech-101.

    python recipes/caltech101.py --weights=imagenet.weights.h5

`--weights` is the path of a weights file of `tf_gems.zoo.resnet50`. Without it,
mining starts from signed constants, as on the other datasets.
"""

import experiment
from absl import app
from settings import Settings
from settings import define_flags

PRESETS = {
    "paper": Settings.from_paper("caltech101", "resnet50_affine", 0.95),
    "smoke": Settings(
        "caltech101",
        "resnet50_affine",
        target_sparsity=0.9,
        mining_epochs=2,
        finetuning_epochs=1,
        batch_size=16,
        optimizer="adam",
        learning_rate=0.01,
        regularization="auto",
        freeze_period=1,
        finetuning_optimizer="adam",
        finetuning_learning_rate=1e-3,
        dense_learning_rate=1e-3,
        fraction=0.05,
        image_size=64,
    ),
}

define_flags(PRESETS)

if __name__ == "__main__":
    app.run(lambda _: experiment.main(PRESETS))
