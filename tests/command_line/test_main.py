"""Tests the output of the `tf_gems` command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import tf_gems
from tf_gems.command_line.main import COMMANDS
from tf_gems.command_line.main import main
from tf_gems.export.run_litert import run_litert

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
ROOT = Path(tf_gems.__file__).parents[1]


def network():
    return keras.Sequential(
        [
            keras.Input((12,), name="numbers"),
            keras.layers.Dense(40, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ],
        name="small",
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, a ticket of its network, and the outputs of this ticket."""
    directory = tmp_path_factory.mktemp("files")
    keras.utils.set_random_seed(5)
    sparse = tf_gems.SparseModel(
        network(), kernel_initializer="signed_constant", seed=0
    )
    ticket = tf_gems.methods.RandomPruning(0.9, seed=1).find(sparse)
    ticket.metadata["note"] = "by hand"
    ticket.save(directory / "small.gem")
    network().save(directory / "dense.keras")
    # The weights of another seed differ from those of the ticket.
    tf_gems.SparseModel(network(), seed=3).save(directory / "sparse.keras")
    x = np.random.default_rng(0).normal(size=(6, 12)).astype("float32")
    plain = network()
    ticket.apply(plain)
    np.savez(directory / "truth.npz", x=x, y=np.array(plain(x)))
    return directory


def truth(files):
    with np.load(files / "truth.npz") as found:
        return found["x"], found["y"]


def run(*arguments, **keywords):
    """Runs the command line in a separate process."""
    paths = [os.environ.get("PYTHONPATH", ""), str(ROOT)]
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        **keywords,
    )


def refused(capsys, code, *arguments):
    """Runs a command that fails. Returns its message, a single line."""
    assert main([str(argument) for argument in arguments]) == code
    output, errors = capsys.readouterr()
    assert output == "" and errors.endswith("\n")
    assert errors.count("\n") == 1 and errors.startswith("tf_gems: ")
    return errors


def test_inspect_does_not_import_tensorflow(files, tmp_path, monkeypatch):
    (tmp_path / "tensorflow.py").write_text("raise RuntimeError('imported')")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    path = files / "small.gem"
    done = run("-m", "tf_gems", "inspect", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tf_gems.Ticket.inspect(path)}\n"
    # Help does not need it either. Commands that run a network do.
    for arguments in (["--version"], ["expand", "--help"]):
        assert run("-m", "tf_gems", *arguments).returncode == 0
    output = f"--output={tmp_path / 'plain.keras'}"
    assert "imported" in run("-m", "tf_gems", "expand", path, output).stderr


@pytest.mark.parametrize(
    "imports",
    [
        "import tf_gems, keras",
        "import keras, tf_gems",
        "import tf_gems; tf_gems.export; import keras",
        "from tf_gems.layers import GemLayer; import keras",
    ],
)
def test_layers_are_registered_for_any_import_order(monkeypatch, imports):
    # The backend that starts fastest.
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    names = ["SparseModel", "GemLayer", "Lamp", "HyperbolicStep"]
    code = f"""{imports}
for name in {names}:
    found = keras.saving.get_registered_object(f"tf_gems>{{name}}")
    assert found.__name__ == name
import tf_gems
assert keras.saving.get_registered_object("tf_gems>GemLayer") is (
    tf_gems.GemLayer)
"""
    done = run("-W", "ignore", "-c", code)
    assert (done.returncode, done.stderr) == (0, "")


def test_import_ignores_arguments():
    code = "import sys; sys.argv = sys.orig_argv = None; import tf_gems"
    assert run("-c", f"{code}; assert 'keras' not in sys.modules").stderr == ""


def test_errors_and_closed_pipe(files):
    done = run("-m", "tf_gems", "inspect", files / "dense.keras")
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert "dense.keras" in line and "Traceback" not in line
    reader, writer = os.pipe()
    os.close(reader)
    with subprocess.Popen(
        [sys.executable, "-m", "tf_gems", "inspect", files / "small.gem"],
        stdout=writer,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:
        os.close(writer)
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_expand_prints_no_logs(files, tmp_path):
    output = tmp_path / "plain.keras"
    done = run(
        *("-m", "tf_gems", "expand", files / "small.gem"),
        *(f"--model={files / 'dense.keras'}", f"--output={output}"),
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "'small' with 60 of 600 prunable weights" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["plain.keras"]
    x, y = truth(files)
    plain = keras.models.load_model(output)
    assert type(plain) is keras.Sequential
    np.testing.assert_allclose(plain(x), y, atol=1e-6)
    kernels = [w for w in plain.weights if len(w.shape) > 1]
    assert sum(np.count_nonzero(kernel) for kernel in kernels) == 60


def test_expand_sparse_model(files, tmp_path, capsys):
    output = tmp_path / "plain.keras"
    output.write_text("is replaced")
    arguments = ["expand", f"{files / 'small.gem'}", f"--output={output}"]
    assert main([*arguments, "--model", f"{files / 'sparse.keras'}"]) == 0
    assert f"Wrote {output}, {output.stat().st_size:,} bytes" in (
        capsys.readouterr().out
    )
    x, y = truth(files)
    np.testing.assert_allclose(keras.models.load_model(output)(x), y, atol=1e-6)


def test_expand_builds_network_from_config(files, tmp_path, capsys):
    output = tmp_path / "alone.keras"
    arguments = ["expand", f"{files / 'small.gem'}", f"--output={output}"]
    assert main(arguments) == 0
    assert "'small' with 60 of 600" in capsys.readouterr().out
    x, y = truth(files)
    np.testing.assert_allclose(keras.models.load_model(output)(x), y, atol=1e-6)


def test_expand_zoo_network(tmp_path, capsys):
    ticket_path, output = tmp_path / "zoo.gem", tmp_path / "zoo.keras"
    model = tf_gems.zoo.lenet_300_100((4, 4, 1), 7)
    sparse = tf_gems.SparseModel(model, seed=0)
    ticket = tf_gems.methods.RandomPruning(0.9).find(sparse)
    ticket.config = None  # As in files of earlier versions, without a config.
    arguments = ["expand", f"{ticket_path}", f"--output={output}"]
    shape = ["--input_shape=4,4,1", "--classes=7"]
    ticket.save(ticket_path)
    refusal = refused(capsys, 1, *arguments, *shape)
    assert "nor the name of a network" in refusal
    assert main([*arguments, *shape, "--network=lenet_300_100"]) == 0
    output.unlink()
    ticket.metadata["network"] = "lenet_300_100"
    ticket.save(ticket_path)
    assert main([*arguments, *shape]) == 0
    capsys.readouterr()
    loaded = keras.models.load_model(output)
    for variable, (path, value) in zip(
        loaded.weights, ticket.weights.items(), strict=True
    ):
        expected = value * ticket.masks.get(path, True)
        np.testing.assert_array_equal(np.array(variable), expected)
    assert "(784, 300)" in refused(capsys, 1, *arguments)
    refusal = refused(capsys, 1, *arguments, "--network=lenet_300")
    assert "Did you mean 'lenet_300_100'" in refusal
    refusal = refused(capsys, 2, *arguments, "--input_shape=4,x")
    assert "--input_shape=4,x" in refusal


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports need TensorFlow"
)
def test_export(files, tmp_path, capsys):
    plain = network()
    tf_gems.Ticket.load(files / "small.gem").apply(plain)
    model, lite = tmp_path / "plain.keras", tmp_path / "plain.tflite"
    plain.save(model)
    x, y = truth(files)
    assert main(["export", f"{model}", f"--output={lite}"]) == 0
    assert str(lite) in capsys.readouterr().out
    [[found], *_], _ = run_litert(f"{lite}", [{"numbers": x}])
    np.testing.assert_allclose(*found.values(), y, atol=1e-5)

    saved = tmp_path / "saved"
    assert main(["export", f"{model}", f"--output={saved}"]) == 0
    capsys.readouterr()
    import tensorflow as tf

    serve = tf.saved_model.load(saved).signatures["serving_default"]
    np.testing.assert_allclose(
        *serve(numbers=tf.constant(x)).values(), y, atol=1e-5
    )
    refusal = refused(capsys, 1, "export", model, f"--output={saved}")
    assert "not empty" in refusal
    refusal = refused(
        capsys, 2, "export", model, f"--output={saved}", "--batch_size=2"
    )
    assert "--batch_size" in refusal
    refusal = refused(capsys, 1, "export", lite, f"--output={saved}")
    assert "Keras cannot read" in refusal


def test_compare(capsys):
    directory = RESULTS / "compare_mnist"
    comparison = tf_gems.Comparison.load(directory / "results.json")
    assert main(["compare", f"{directory}"]) == 0
    assert capsys.readouterr().out == f"{comparison}\n"
    assert (
        main(["compare", f"{directory}/results.json", "--sparsity=0.95"]) == 0
    )
    assert capsys.readouterr().out == f"{comparison.render(0.95)}\n"
    assert "Known: [0.0, 0.95" in refused(
        capsys, 1, "compare", directory, "--sparsity=0.5"
    )
    other = RESULTS / "freeze_cost.json"
    assert "tf_gems.compare" in refused(capsys, 1, "compare", other)
    assert "results.json" in refused(capsys, 1, "compare", RESULTS)


def test_inspect_as_json(files, capsys):
    path = files / "small.gem"
    assert main(["inspect", f"{path}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == tf_gems.Ticket.inspect(path).to_dict()
    assert found["bytes"] == path.stat().st_size
    # Signs of one magnitude, initial statistics and zero biases.
    codings = {layer["coding"] for layer in found["layers"]}
    assert codings == {"signs", "constant"}


def test_help(capsys):
    assert main(["--help"]) == 0
    overview = capsys.readouterr().out
    for name, command in COMMANDS.items():
        assert f"  {name} " in overview
        assert main([name, "--help"]) == 0
        described = capsys.readouterr().out
        assert described.startswith(f"usage: tf_gems {name} ")
        assert command.__doc__.strip() in described
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tf_gems {tf_gems.__version__}\n"
    assert main([]) == 2
    assert overview == capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["inspct"], "Did you mean 'inspect'"),
        (["inspect"], "required: TICKET.gem"),
        (["inspect", "a", "b"], "Unrecognized arguments: b"),
        (["inspect", "a", "--jsn"], "Unrecognized arguments: --jsn"),
        (["inspect", "a", "--max_bytes=0"], "received 0"),
        (["--bogus"], "required: COMMAND"),
        (["compare", "a", "--sparsity=x"], "--sparsity: invalid float"),
        (["expand", "a.gem"], "--output"),
        (["expand", "a.gem", "--output=a.h5"], "--output=a.h5"),
        (
            ["expand", "a", "--output=a.keras", "--model=b", "--network=c"],
            "cannot be combined",
        ),
        (["export", "a.keras"], "--output"),
        (["export", "a.keras", "--output=b", "--optimize=x"], "optimize"),
        (["export", "a", "--output=b.tflite", "--overwrite"], "b.tflite"),
    ],
)
def test_invalid_calls(capsys, arguments, message):
    line = refused(capsys, 2, *arguments)
    assert message in line and "--help`" in line


def test_missing_files(files, tmp_path, capsys):
    for arguments in (
        ["inspect", tmp_path / "none"],
        ["compare", tmp_path / "none"],
        ["expand", tmp_path / "none", f"--output={tmp_path}/a.keras"],
        ["export", tmp_path / "none", f"--output={tmp_path}/a.tflite"],
        [
            *("expand", files / "small.gem", f"--output={tmp_path}/a.keras"),
            f"--model={tmp_path}/none",
        ],
    ):
        assert "none" in refused(capsys, 1, *arguments)
    output = f"--output={tmp_path}/none/a.keras"
    model = f"--model={files / 'dense.keras'}"
    refusal = refused(capsys, 1, "expand", files / "small.gem", output, model)
    assert "none" in refusal
    assert not list(tmp_path.iterdir())


def test_report(files, tmp_path, capsys):
    x, _ = truth(files)
    np.savez(tmp_path / "data.npz", inputs=x, labels=np.zeros(len(x), int))
    output = tmp_path / "report"
    tf_gems.Ticket.load(files / "small.gem").apply(model := network())
    model.save(tmp_path / "pruned.keras")
    arguments = [
        *("report", str(tmp_path / "pruned.keras"), f"--output={output}"),
        *(f"--data={tmp_path / 'data.npz'}", "--forms=float32", "--runs=0"),
    ]
    assert main(arguments) == 0
    assert "float32" in capsys.readouterr().out
    [form] = json.loads((output / "report.json").read_text("utf-8"))["rows"]
    assert form["form"] == "float32"
    zeros = np.argmax(model(x), -1) == 0
    np.testing.assert_allclose(form["accuracy"], np.mean(zeros))
    assert main([*arguments[:3], "--data=nowhere.npz"]) == 1
    assert main([*arguments[:3], f"--data={files / 'truth.npz'}"]) == 1
    assert "an array `inputs`" in capsys.readouterr().err
    assert main(["serve", str(tmp_path / "nowhere")]) == 1


def test_report_on_sparse_model_file(files, tmp_path, capsys):
    sparse = tf_gems.SparseModel(network(), seed=0)
    sparse.start_finetuning(
        tf_gems.methods.RandomPruning(0.9, seed=1).find(sparse)
    )
    sparse.save(tmp_path / "sparse.keras")
    arguments = [
        *("report", str(tmp_path / "sparse.keras"), "--forms=gem", "--runs=0"),
        f"--output={tmp_path / 'report'}",
    ]
    assert main(arguments) == 0
    assert "gem" in capsys.readouterr().out
