"""Installs tf_gems; the extras hold what only some users need."""

from pathlib import Path

from setuptools import find_packages
from setuptools import setup

EXTRAS = {
    "litert": ["ai-edge-litert>=2.0"],
    "recipes": [
        "absl-py>=1.4",
        "ai-edge-litert>=2.0",
        "importlib_resources",  # tensorflow-datasets needs it undeclared
        "matplotlib>=3.8",
        "scikit-learn>=1.4",
        "tensorflow-datasets>=4.9.7",
    ],
    # keras-tuner needs tensorboard on the TensorFlow backend.
    "tuner": ["keras-tuner>=1.4.7", "tensorboard>=2.16"],
    "tfmot": ["tensorflow-model-optimization>=0.8"],
    "tensorboard": ["tensorboard>=2.16"],
    "zstd": ["zstandard>=0.22"],
    "jax": ["jax>=0.4.30"],
    "tests": [
        "hypothesis>=6.100",
        "playwright>=1.45",
        "pytest>=8.0",
        "pytest-xdist>=3.5",
        "tensorflow-model-optimization>=0.8",  # that models go there and back
        "tf_keras>=2.21",  # that a Keras 2 model is refused
        "zstandard>=0.22",
    ],
}
EXTRAS["dev"] = [
    *EXTRAS["recipes"],
    *EXTRAS["jax"],
    *EXTRAS["tests"],
    *EXTRAS["tuner"],
    "ruff>=0.6",
]

setup(
    name="tf_gems",
    version="0.1.0",
    description="Sparse networks before training: rare gems on Keras 3.",
    long_description=Path(__file__).with_name("README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["tf_gems", "tf_gems.*"]),
    package_data={
        "tf_gems.page": ["*.json", "static/*"],
        "tf_gems.planning": ["*.json"],
    },
    exclude_package_data={"": ["BUILD"]},
    python_requires=">=3.11",
    install_requires=[
        "filelock>=3.24",  # whose locks may be removed while they are held
        "keras>=3.15",
        "numpy>=1.26",
        "tensorflow>=2.21",
    ],
    extras_require=EXTRAS,
)
