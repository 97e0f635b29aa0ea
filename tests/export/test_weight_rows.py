"""Tests the weight names in reports on files."""

import keras
import numpy as np
import pytest
from export_networks import prune

import tf_gems
from tf_gems.export import flatbuffer

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)
pytest.importorskip("ai_edge_litert")

layers = keras.layers
random = np.random.default_rng(0)


def network(count):
    """Dense layers of equal size, each with a folded normalization."""
    x = inputs = keras.Input((24,), name="x")
    for number in range(count):
        x = layers.Dense(24, name=f"part_{number}")(x)
        x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
    return keras.Model(inputs, layers.Dense(5, name="last")(x))


def names(report, path):
    """Returns the names of the weights in the order of execution."""
    file = flatbuffer.read(path.read_bytes())
    [graph] = file.subgraphs
    sources = flatbuffer.stored(file, graph)
    rows = zip(flatbuffer.weights(file), report.tensors, strict=True)
    by_index = {weight.place[1]: row["name"] for weight, row in rows}
    found = []
    for operator in graph.operators:
        if flatbuffer.operator_name(file, operator) == "FULLY_CONNECTED":
            index = int(operator.inputs[1])
            found.append(by_index[sources.get(index, index)])
    return found


@pytest.mark.parametrize("form", ["float32", "float16", "int8"])
def test_similar_weights_have_their_layer_names(tmp_path, form):
    sparse, ticket = prune(network(3), 0.8)
    mask = ticket.masks["part_0/kernel"]
    same = {k: mask if "part" in k else v for k, v in ticket.masks.items()}
    tf_gems.Ticket(same, ticket.weights).apply(sparse)
    path = tmp_path / "m.tflite"
    data = random.normal(size=(20, 24)).astype("float32")
    report = tf_gems.export_litert(
        sparse, path, form=form, representative_data=data
    )
    assert names(report, path) == [
        *(f"part_{number}/kernel" for number in range(3)),
        "last/kernel",
    ]


def test_shared_weights_keep_their_file_names(tmp_path):
    model = network(3)
    first, second = model.get_layer("part_0"), model.get_layer("part_1")
    for layer in (first, model.get_layer("part_2")):
        layer.kernel.assign(random.normal(size=(24, 24)))
    # A scale factor makes no difference.
    second.kernel.assign(2 * first.kernel)
    path = tmp_path / "m.tflite"
    found = names(tf_gems.export_litert(model, path), path)
    assert found[2:] == ["part_2/kernel", "last/kernel"]
    paths = {weight.path for weight in model.weights}
    assert len(set(found)) == 4 and paths.isdisjoint(found[:2])
