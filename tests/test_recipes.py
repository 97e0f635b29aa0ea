import csv
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import forked
import numpy as np
import pytest
from data import directory

from tf_gems import datasets
from tf_gems import zoo

RECIPES = Path(__file__).parents[1] / "recipes"
TIMEOUT = 400


def start(output_dir, *flags, recipe="digits.py"):
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [
            sys.executable,
            RECIPES / recipe,
            f"--output_dir={output_dir}",
            *flags,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def run(output_dir, *flags, recipe="digits.py"):
    process = start(output_dir, *flags, recipe=recipe)
    output, _ = process.communicate(timeout=TIMEOUT)
    return process.returncode, output


def refuse(output_dir, *flags, recipe="digits.py"):
    """Runs a recipe that refuses its flags before any computation."""
    output_dir = f"--output_dir={output_dir}"
    return forked.run(RECIPES / recipe, output_dir, *flags)


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_digits_resumes_after_kill_and_finished_run_is_no_op(tmp_path):
    flags = ["--preset=smoke", "--mining_epochs=6"]
    process = start(tmp_path, *flags)
    deadline = time.time() + TIMEOUT
    while not list(tmp_path.glob("*/backup-mine/*.backup")):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()

    code, output = run(tmp_path, *flags)
    assert code == 0, output
    [run_directory] = (path for path in tmp_path.iterdir() if path.is_dir())
    results = json.loads((run_directory / "results.json").read_text("utf-8"))
    stages = results["stages"]
    assert list(stages) == ["mine", "finetune", "random", "dense", "export"]
    assert stages["mine"]["kept"] == stages["random"]["kept"] == 5020
    assert stages["dense"]["accuracy"] > 0.9
    assert stages["export"]["accuracy"] == stages["finetune"]["accuracy"]
    assert results["command"] == (
        "python recipes/digits.py --preset=smoke --mining_epochs=6"
    )
    # The log holds each epoch of the killed run and of the second run once.
    epochs = [int(row["epoch"]) for row in read_csv(run_directory / "mine.csv")]
    assert epochs == list(range(6))
    assert (run_directory / "report.png").read_bytes().startswith(b"\x89PNG")
    assert not list(run_directory.glob("backup-*"))
    assert "rare gem, fine-tuned" in output
    # TensorFlow's own log lines are silenced.
    assert "oneDNN" not in output and "cuda" not in output

    # Simulates a kill after the last stage, during the cleanup.
    left = [
        run_directory / "backup-dense" / "000000003.backup",
        run_directory / ".tf_gems" / "lock",
    ]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()

    code, again = run(tmp_path, *flags)
    assert code == 0
    assert not any(path.exists() for path in left)
    assert not left[0].parent.exists()
    assert "Epoch" not in again
    assert again.strip() == output[output.index("lenet_300_100 on") :].strip()


def test_invalid_setting_is_refused_before_writing(tmp_path):
    code, output = refuse(tmp_path, "--finetuning_schedule=cosin")
    assert code != 0
    assert "Did you mean 'cosine'" in output
    code, output = refuse(tmp_path, "--target_sparsity=98")
    assert code != 0
    assert "Did you mean 0.98?" in output
    assert not list(tmp_path.iterdir())


def test_missing_data_error_names_remedy(tmp_path):
    code, output = refuse(
        tmp_path / "runs", f"--data_dir={tmp_path}", recipe="mnist.py"
    )
    assert code != 0
    assert "Set TFDS_DATA_DIR" in output
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_tiny_imagenet_smoke_run(tmp_path):
    place = directory("tiny_imagenet_20")
    flags = [
        "--preset=smoke",
        f"--data_dir={place}",
        "--network=lenet_300_100",
        "--image_size=16",
        "--fraction=0.01",
        # The ticket has the alive weights whose scores round to one.
        "--masks=rounded",
        "--optimizer=adam",
        "--learning_rate=0.02",
        "--regularization=1e-5",
        "--target_sparsity=0.3",
        "--finetuning_optimizer=nesterov",
        "--first_milestone=0.4",
    ]
    code, output = run(tmp_path / "runs", *flags, recipe="tiny_imagenet.py")
    assert code == 0, output
    [path] = (tmp_path / "runs").glob("tiny_imagenet-*/results.json")
    stages = json.loads(path.read_text("utf-8"))["stages"]
    size = 16 * 16 * 3 * 300 + 300 * 100 + 100 * 20
    assert stages["mine"]["size"] == size
    # Scores start uniform, so about half of them round to one.
    assert 0.3 * size < stages["mine"]["kept"] < 0.6 * size
    assert stages["random"]["kept"] == stages["mine"]["kept"]
    assert stages["export"]["accuracy"] == stages["finetune"]["accuracy"]
    assert "lenet_300_100 on tiny_imagenet" in output


def test_every_network_starts_from_pretrained_weights(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    experiment = importlib.import_module("experiment")
    settings = importlib.import_module("settings")
    trained = zoo.resnet50((32, 32, 3), 7, affine=True)
    trained.save_weights(tmp_path / "trained.weights.h5")
    run = experiment.Run(
        settings.Settings(
            "caltech101",
            "resnet50_affine",
            weights=str(tmp_path / "trained.weights.h5"),
        ),
        tmp_path,
    )
    examples = np.zeros((1, 32, 32, 3), "float32"), np.zeros(1, "int64")
    run.data = datasets.ImageData("caltech101", examples, examples, 5)
    model = run._sparse_model().model
    compared = 0
    for layer in trained.layers:
        if layer.weights and layer.name != "classifier":
            ours = model.get_layer(layer.name).get_weights()
            for value, expected in zip(ours, layer.get_weights(), strict=True):
                np.testing.assert_array_equal(value, expected)
                compared += 1
    # A kernel and four normalization tensors per block.
    assert compared == 53 * 5
    assert model.output_shape == (None, 5)


def test_paper_settings_flag(tmp_path):
    flags = ["--network=mobilenet_v2", f"--data_dir={tmp_path}"]
    code, output = refuse(
        tmp_path, *flags, "--target_sparsity=0.9", recipe="cifar10.py"
    )
    assert code != 0
    assert "mobilenet_v2 at 0.5, 0.8, 0.95, 0.986;" in output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("recipe", ["mnist.py", "cifar10.py"])
def test_recipes_have_presets(recipe):
    _, output = forked.run(RECIPES / recipe, "--helpfull")
    assert "<paper|short|smoke>" in output
    assert "The paper uses 0.9856" in output


@pytest.mark.slow
def test_compare_smoke_run_and_rerun(tmp_path):
    flags = ["--preset=smoke", "--names=gem_miner,snip,random_erk"]
    code, output = run(tmp_path, *flags, recipe="compare.py")
    assert code == 0, output
    [run_directory] = tmp_path.iterdir()
    rows = json.loads((run_directory / "results.json").read_text())["rows"]
    assert [row["method"] for row in rows] == [
        "dense",
        "gem_miner",
        "snip",
        "random_erk",
    ]
    assert all(row["kept"] == 5020 for row in rows[1:])
    assert rows[0]["accuracy"] > 0.8
    for name in ("accuracy", "layers", "cost"):
        assert (run_directory / f"{name}.png").stat().st_size > 10_000
    flags[1] = "--names=gem_miner,snip"
    code, output = run(tmp_path, *flags, recipe="compare.py")
    assert code == 0, output
    again = json.loads((run_directory / "results.json").read_text())["rows"]
    assert again == rows[:3]
