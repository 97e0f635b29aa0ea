"""A rare gem on Tiny ImageNet, or any directory of images in classes.

python recipes/tiny_imagenet.py --data_dir=tiny-imagenet-200
python recipes/tiny_imagenet.py --data_dir=... --network=resnet50
"""

import experiment
from absl import app
from settings import Settings
from settings import define_flags

PRESETS = {
    "paper": Settings.from_paper("tiny_imagenet", "resnet18", 0.986),
    "smoke": Settings(
        "tiny_imagenet",
        "resnet18",
        target_sparsity=0.9,
        mining_epochs=2,
        finetuning_epochs=1,
        learning_rate=0.5,
        regularization="auto",
        freeze_period=1,
        fraction=0.02,
        image_size=32,
    ),
}

define_flags(PRESETS)

if __name__ == "__main__":
    app.run(lambda _: experiment.main(PRESETS))
