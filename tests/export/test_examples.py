"""Exports are compared on examples that say something; files of one name."""

import keras
import numpy as np
import pytest
from keras import layers

import tf_gems as gems
from tf_gems import files
from tf_gems import parity
from tf_gems.export import readiness_report
from tf_gems.export.gem import export_gem

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="exports need Keras on TensorFlow",
)


@pytest.fixture(scope="module")
def model():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.layers[0].kernel.assign(np.eye(4, 3))
    return model


@pytest.mark.parametrize(
    ("export", "name"),
    [
        (export_gem, "new.gem"),
        (gems.export_litert, "new.tflite"),
        (gems.export_saved_model, "new"),
    ],
)
def test_empty_examples(model, tmp_path, export, name):
    with pytest.raises(ValueError, match=r"batch of examples.*\(0, 4\)"):
        export(model, tmp_path / name, inputs=np.zeros((0, 4)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_calibration_examples_must_be_finite(model, tmp_path, bad):
    data = np.ones((5, 4))
    data[3, 1] = bad
    with pytest.raises(ValueError, match="representative_data with NaN or"):
        gems.export_litert(
            model, tmp_path / "a.tflite", data, "int8", representative_data=data
        )
    with pytest.raises(ValueError, match="representative_data with NaN or"):
        gems.deployment_report(
            model,
            tmp_path / "all",
            (np.ones((5, 4)), np.zeros(5, int)),
            representative_data=data,
        )
    assert not list(tmp_path.iterdir())


def test_nonfinite_outputs_ask_for_other_inputs():
    found = parity.measure_parity(
        {"y": np.ones(3)}, {"y": np.array([1, np.nan, 1])}
    )
    with pytest.raises(RuntimeError, match="`inputs` contain NaN or infinite"):
        found.refuse_above(1e-4, "path='a'")


@pytest.mark.parametrize("data", [b"", b"no", bytes(range(256)) * 40])
def test_invalid_tflite_file(tmp_path, data):
    path = tmp_path / "model.tflite"
    path.write_bytes(data)
    with pytest.raises(ValueError, match="'.*model.tflite', which is not one"):
        readiness_report(path)


def test_gem_is_written_to_partial_file_first(model, tmp_path, monkeypatch):
    """The next writer removes what a kill leaves by the name of its target."""
    opened, token = [], files.secrets.token_hex

    def counted(size):
        opened.append(token(size))
        return opened[-1]

    monkeypatch.setattr(files.secrets, "token_hex", counted)
    export_gem(model, tmp_path / "a.gem", inputs=np.eye(4))
    assert len(opened) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.gem"]
