"""Tests that no writer deletes or changes files of the user.

Every writer of the library, the command line and the recipes is called with
invalid targets, and with a directory of user files, some of which have the
names that it writes. It may refuse the target or write other files. Afterwards
every user file must exist with the same bytes.
"""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from eager import run_eagerly

import tf_gems as gems
from tf_gems import files as writing
from tf_gems import page
from tf_gems.command_line.main import main
from tf_gems.comparison import Comparison
from tf_gems.export import export_gem

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports need TensorFlow"
)
RECIPES = Path(__file__).parents[1] / "recipes"
LOSS = "sparse_categorical_crossentropy"
ROW = {
    **{"method": "snip", "check": None, "sparsity": 0.9, "seed": 0},
    **{"accuracy_before": 0.5, "accuracy": 0.6, "epochs_of_search": 1},
    **{"seconds_of_search": 1.0, "processor_seconds_of_search": 1.0},
    **{"seconds_of_finetuning": 1.0, "density_of_layers": {"a/kernel": 0.1}},
}
COMPARISON = Comparison([ROW], {"epochs": 3}, {})
USERS = (
    *("notes.txt", ".hidden", "data.csv", "index.html", "page.css", "mine"),
    *("results.json", "results.csv", "accuracy.png", "layers.png"),
    *("report.json", "report.png", "export.txt", "ticket.gem", "mine.csv"),
    *("float32.tflite", "sparse.tflite", "dense.tflite", "finetuned.keras"),
    *("page.json", "inputs.bin", "outputs.bin", "model.keras.partial-123"),
    *("saved_model.pb", "variables/notes.txt", "assets/photo.jpg"),
    *("saved_model/notes.txt", "training/thesis.tex", "run/page.json"),
    *("page/drawing.svg", "backup-mine/music.mid", "cells/letter.txt"),
    *("round_1/song.txt", "digits.gem", "digits.json", "old/x", "sparse/x"),
)
# Invalid targets. `None` stands for the name of an existing directory.
BAD = ("", " ", ".", "./", "..", "{home}", "{home}/..", "/", "~", "~/x", None)


def fill(directory):
    """Creates user files of many kinds. Returns a snapshot of them."""
    for name in USERS:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"the user's own {name}".encode() * 9)
    (directory / "empty").mkdir()
    (directory / "link").symlink_to(directory / "notes.txt")
    (directory / "link to folder").symlink_to(directory / "training")
    return snapshot(directory)


def snapshot(directory):
    """Returns the content of each path in a directory."""
    found = {}
    for place, folders, names in os.walk(directory):
        for name in (*folders, *names):
            path = Path(place, name)
            if path.is_symlink():
                found[path] = os.readlink(path)
            else:
                found[path] = path.read_bytes() if path.is_file() else "folder"
    return found


def assert_survives(before):
    for path, content in before.items():
        assert os.path.lexists(path), f"'{path}' is gone"
        if path.is_symlink():
            assert os.readlink(path) == content, path
        elif content != "folder":
            assert path.read_bytes() == content, path


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A pruned network and its files."""
    folder = tmp_path_factory.mktemp("network")
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1), name="image"),
            keras.layers.Flatten(),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(3),
        ]
    )
    sparse = gems.SparseModel(model, seed=0)
    ticket = gems.methods.RandomPruning(0.8, seed=1).find(sparse)
    ticket.save(folder / "ticket.gem")
    ticket.apply(gems.unwrap(sparse))
    model.save(folder / "pruned.keras")
    images = np.random.default_rng(0).normal(size=(4, 4, 4, 1))
    np.savez(folder / "data.npz", inputs=images.astype("float32"))
    (folder / "run").mkdir()
    for name in page.server.FILES:
        (folder / "run" / name).write_text("{}")
    return folder, model, ticket


# ---- Writers: functions of the fixture `files`, a target and `again`


def saved_model(files, target, again):
    gems.export_saved_model(files[1], target, overwrite=again)


def saved_model_command(files, target, again):
    output = "--output=" + os.fspath(target)
    command("export", files[0] / "pruned.keras", output, *OVERWRITE[again:])


OVERWRITE = ["--overwrite", "--overwrite"]


def report(files, target, again):
    gems.deployment_report(
        files[1], target, (np.zeros((4, 4, 4, 1)), None), ["gem"], runs=0
    )


def report_command(files, target, again):
    command(
        *("report", files[0] / "pruned.keras", f"--output={target}"),
        *("--forms=gem", "--runs=0", f"--data={files[0] / 'data.npz'}"),
    )


def write_page(files, target, again):
    page.write_page(files[1], target, np.zeros((2, 4, 4, 1)))


def copy_page(files, target, again):
    page.copy_page(files[0] / "run", target)


def copy_command(files, target, again):
    command("serve", files[0] / "run", f"--copy={target}")


def save_comparison(files, target, again):
    COMPARISON.save(target)


def draw_comparison(files, target, again):
    pytest.importorskip("matplotlib")
    COMPARISON.draw(target)


@run_eagerly()
def compare(files, target, again):
    gems.compare(
        lambda seed: classifier(),
        [batch()],
        [batch()],
        {"../../outside": "random"},
        *([0.5], 1, target, "sgd", LOSS),
        seeds=(0,),
        dense=False,
        verbose=0,
    )


def find(files, target, again):
    sparse = gems.SparseModel(classifier(), seed=0)
    sparse.compile("sgd", LOSS, run_eagerly=True)
    method = gems.methods.GradualMagnitude(0.5, epochs=1)
    method.find(sparse, [batch()], directory=target)


def find_in_rounds(files, target, again):
    sparse = gems.SparseModel(classifier(), seed=0)
    sparse.compile("sgd", LOSS, run_eagerly=True)
    method = gems.methods.LearningRateRewinding(0.5, epochs=1, rounds=1)
    method.find(sparse, [batch()], directory=target)


def recipe_module(name):
    return importlib.import_module(name)


def classifier():
    return keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )


def batch():
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    return x, (x[:, 0] > 0).astype("int64")


class Refused(Exception):
    """A command ended with a nonzero exit code."""


def command(*arguments):
    code = main([str(argument) for argument in arguments])
    if code:
        raise Refused(code)


DIRECTORIES = [
    pytest.param(writer, id=writer.__name__, marks=marks)
    for writer, marks in (
        (saved_model, needs_tensorflow),
        (saved_model_command, needs_tensorflow),
        (report, needs_tensorflow),
        (report_command, needs_tensorflow),
        (write_page, needs_tensorflow),
        (copy_page, ()),
        (copy_command, ()),
        (save_comparison, ()),
        (draw_comparison, ()),
        (compare, ()),
        (find, ()),
        (find_in_rounds, ()),
    )
]
COMMANDS = ("saved_model_c", "report_c", "copy_c")
REFUSALS = (OSError, ValueError, Refused)


@pytest.fixture
def user(tmp_path, monkeypatch):
    """The home of a user who works in a directory full of files."""
    home, work = tmp_path / "home" / "me", tmp_path / "home" / "me" / "work"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    fill(work)
    fill(home)
    monkeypatch.chdir(work)
    return home


@pytest.fixture
def light(monkeypatch, tmp_path):
    """Placeholder files for LiteRT.js, which is only copied."""
    from tf_gems.page import static_copy

    packages = tmp_path / "node_modules"
    for part in (*static_copy._PARTS, "wasm-utils/dist/index.js"):
        path = packages / "@litertjs" / part
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("export {};")
    for module in (page.server, static_copy):
        monkeypatch.setattr(module, "PACKAGES", packages)


@pytest.mark.parametrize("writer", DIRECTORIES)
def test_invalid_targets_are_refused_before_writing(files, user, writer):
    """Refuses the target before any work, even with `overwrite`."""
    before = snapshot(user)
    takes_overwrite = writer in (saved_model, saved_model_command)
    for bad in BAD:
        target = bad and bad.format(home=user)
        if target is None and writer.__name__.startswith(("find", *COMMANDS)):
            continue
        for again in (False, True)[: 1 + takes_overwrite]:
            with pytest.raises((ValueError, Refused)):
                writer(files, target, again)
            assert snapshot(user) == before, target


@pytest.mark.parametrize("writer", DIRECTORIES)
def test_user_directory_survives(files, user, writer, light):
    """The writer either refuses the directory or keeps its files."""
    target = user / "work" / "archive"
    for again in (False, True):
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        before = fill(target)
        try:
            writer(files, target, again)
        except REFUSALS:
            assert snapshot(target) == before, "a refused directory changed"
        assert_survives(before)


@pytest.mark.parametrize("writer", DIRECTORIES)
def test_new_directory_is_written_and_rewritten(files, user, writer, light):
    """Files of this library are replaced, and files of the user are kept."""
    around = snapshot(user)
    target = user / "work" / "new"
    if not writer.__name__.startswith(("saved_model", "copy")):
        target.mkdir()  # These writers add files to an existing directory.
        (target / "photo.jpg").write_text("mine")
        around = snapshot(user)
    writer(files, target, False)
    assert any(path.is_file() for path in target.rglob("*")) or "find" in (
        writer.__name__
    )
    (target / "my notes.txt").write_text("kept")
    (target / "my folder").mkdir()
    # A copy never replaces an existing directory.
    if writer in (copy_page, copy_command):
        with pytest.raises(REFUSALS):
            writer(files, target, True)
    else:
        writer(files, target, True)
    assert (target / "my notes.txt").read_text() == "kept"
    assert (target / "my folder").is_dir()
    assert_survives(around)
    assert not list(user.rglob("*outside*")) or all(
        target in path.parents for path in user.rglob("*outside*")
    )
    assert not list(user.rglob("*.partial-*[0-9a-f]")) or all(
        path.name == "model.keras.partial-123"
        for path in user.rglob("*.partial-*")
    )


# ---- Writers of one file


def _gem(files, target):
    export_gem(files[1], target)


def _litert(files, target):
    gems.export_litert(files[1], target)


def _expand(files, target):
    model = f"--model={files[0] / 'pruned.keras'}"
    command("expand", files[0] / "ticket.gem", model, f"--output={target}")


def _ticket(files, target):
    files[2].save(target)


def _verdict(files, target):
    pytest.importorskip("matplotlib")
    report = gems.sanity.SanityReport({"ticket": [0.9], "shuffled": [0.5]})
    report.draw(target)


def _text(files, target):
    writing.write_text(target, "text")


FILES = [
    pytest.param(writer, suffix, id=writer.__name__, marks=marks)
    for writer, suffix, marks in (
        (_gem, ".gem", needs_tensorflow),
        (_litert, ".tflite", needs_tensorflow),
        (_expand, ".keras", ()),
        (_ticket, ".gem", ()),
        (_verdict, ".png", ()),
        (_text, ".txt", ()),
    )
]


@pytest.mark.parametrize("writer, suffix", FILES)
def test_file_replaces_only_same_name(files, user, writer, suffix):
    before = snapshot(user)
    folder = user / "work" / f"folder{suffix}"
    folder.mkdir()
    for bad in ("", " ", ".", "..", "~/x" + suffix, folder, user, "/"):
        with pytest.raises(REFUSALS):
            writer(files, bad)
    with pytest.raises(OSError):
        _text(files, "/dev/null")  # A target that is not a regular file.
    target = user / "work" / f"new{suffix}"
    for _ in range(2):
        writer(files, target)
    assert target.stat().st_size
    assert snapshot(user) == {
        **before,
        folder: "folder",
        target: target.read_bytes(),
    }


# ---- A SavedModel among other files


@needs_tensorflow
def test_saved_model_replaces_only_its_files(files, tmp_path):
    target = tmp_path / "exported"
    saved_model(files, target, False)
    first = snapshot(target)
    foreign = {
        target / "notes.txt": b"mine",
        target / "variables" / "backup.txt": b"mine",
        target / "assets" / "photo.jpg": b"mine",
    }
    for path, content in foreign.items():
        path.write_bytes(content)
    (target / "variables" / "variables.data-00000-of-00001").write_bytes(b"")
    saved_model(files, target, True)
    after = snapshot(target)
    assert {path: after[path] for path in foreign} == foreign
    assert set(after) == set(first) | set(foreign)
    assert after[target / "variables" / "variables.data-00000-of-00001"]
    # A user file with the name of one of its parts.
    (target / "fingerprint.pb").unlink()
    (target / "fingerprint.pb").symlink_to(target / "notes.txt")
    before = snapshot(target)
    with pytest.raises(FileExistsError, match="fingerprint.pb"):
        saved_model(files, target, True)
    assert snapshot(target) == before
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]


@needs_tensorflow
def test_link_to_saved_model_stays_a_link(files, tmp_path):
    saved_model(files, tmp_path / "real", False)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    saved_model(files, tmp_path / "link", True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "saved_model.pb").exists()


# ---- Recipes


@pytest.fixture
def recipes(monkeypatch):
    monkeypatch.syspath_prepend(RECIPES)
    pytest.importorskip("sklearn")
    pytest.importorskip("matplotlib")


def test_recipe_run_keeps_user_files(files, user, recipes):
    experiment = recipe_module("experiment")
    settings = recipe_module("digits").PRESETS["smoke"]
    for bad in (*("", " ", "~/runs", ".", "..", "/"), user):
        with pytest.raises(ValueError, match="output_dir="):
            experiment.Run(settings, bad)
    run = experiment.Run(settings, user / "work" / "archive")
    run.directory.mkdir(parents=True)
    before = fill(run.directory)
    with pytest.raises(FileExistsError, match="results.json|ticket.gem"):
        (run.directory / "results.json").unlink()
        del before[run.directory / "results.json"]
        run.run_stages("mine")
    assert snapshot(run.directory) == before


# Runs a recipe's program for each line of arguments that it receives.
PROGRAM = """
import importlib, json, sys
from absl import flags
sys.path.insert(0, sys.argv[1])
recipe = importlib.import_module(sys.argv[2])
for line in sys.stdin:
    flags.FLAGS.unparse_flags()
    flags.FLAGS([sys.argv[2], *json.loads(line)])
    try:
        recipe.main([])
    except (OSError, ValueError) as error:
        print("refused:", " ".join(str(error).split()), flush=True)
    else:
        print("written", flush=True)
"""
PROGRAMS = {
    "compare": (["--preset=smoke", "--names=random_erk"], "results.json"),
    "reproduce": (
        [
            *("--table=4", "--only=^dense$", "--seeds=1", "--epochs=0.001"),
            *("--batch_size=2", "--data_dir={images}"),
        ],
        "table4.json",
    ),
}


@pytest.mark.parametrize(
    "recipe",
    ["reproduce", pytest.param("compare", marks=pytest.mark.slow)],
)
def test_recipe_program_keeps_user_files(user, recipe, recipes, tmp_path):
    """Refuses invalid targets, and otherwise keeps the files of the user."""
    random = np.random.default_rng(0)
    images = {
        f"{kind}_{part}": random.integers(0, 10, (2, *shape), "uint8")
        for kind, shape in (("x", (32, 32, 3)), ("y", ()))
        for part in ("train", "test")
    }
    np.savez(tmp_path / "images.npz", **images)
    flags, result = PROGRAMS[recipe]
    flags = [flag.format(images=tmp_path / "images.npz") for flag in flags]
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(RECIPES), recipe],
        env={
            **os.environ,
            "PYTHONPATH": str(RECIPES.parent),
            **dict.fromkeys(("KERAS_HOME", "MPLCONFIGDIR"), str(tmp_path)),
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def run(output):
        command = [*flags, f"--output_dir={output}"]
        process.stdin.write(json.dumps(command) + "\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.startswith(("refused:", "written")):
                return line.strip()
        raise AssertionError(f"the program ended with {process.wait()}")

    with process:
        before = snapshot(user)
        for bad in ("", " ", ".", "..", user, f"{user}/..", "/", "~", "~/x"):
            assert "Received: output_dir=" in run(bad), bad
            assert snapshot(user) == before, bad
        output = user / "work" / "archive"
        assert run(output) == "written"
        [directory] = output.iterdir()
        written = snapshot(directory)
        assert written[directory / result]
        assert_survives(before)
        # User files, one of which has the name of a result.
        for path in directory.glob("*.*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        fill(directory)
        (directory / result).write_text("mine")
        theirs = snapshot(directory)
        refusal = run(output)
        assert f"'{result}'" in refusal and "from another source" in refusal
        assert snapshot(directory) == theirs
        # Without them, it writes its files and replaces its earlier files.
        for path in written:
            if path.parent == directory and not path.is_dir():
                path.unlink(missing_ok=True)
        theirs = snapshot(directory)
        assert [run(output), run(output)] == ["written"] * 2
        assert_survives(theirs)
        assert (directory / result).stat().st_size
        assert_survives(before)
        process.stdin.close()
    assert process.returncode == 0


def test_publishing_replaces_earlier_files(user, recipes):
    publish = recipe_module("publish")
    run = user / "work" / "digits-0"
    run.mkdir()
    stage = {"accuracy": 0.5, "kept": 1, "size": 2, "seconds": 1.0}
    sizes = dict.fromkeys(
        ("bytes", "gzip_bytes", "dense_bytes", "dense_gzip_bytes"), 1
    )
    names = ("mine", "finetune", "random", "dense", "export")
    results = {
        **{"command": "", "provenance": {}, "settings": {}},
        "stages": {
            name: {**stage, "litert": sizes, "saved_model": sizes}
            for name in names
        },
    }
    (run / "results.json").write_text(json.dumps(results))
    for name in ("ticket.gem", "sparse.tflite", "report.png"):
        (run / name).write_text("new")
    for name in names[:4]:
        (run / f"{name}.csv").write_text("epoch,val_accuracy\n0,0.5\n")
    before = snapshot(user)
    for bad in ("", ".", "..", "../x", "/x", "a/b"):
        with pytest.raises(ValueError, match="without directories"):
            publish.publish(run, bad)
    with pytest.raises(FileExistsError, match="digits.gem, digits.json"):
        publish.publish(run, "digits")
    assert snapshot(user) == before
    for _ in range(2):
        publish.publish(run, "new")
    assert (user / "work" / "new.gem").read_text() == "new"
    assert_survives(before)
