"""Runs TFLite files as microcontrollers do."""

import importlib.metadata
import importlib.util
import math

import numpy as np

from tf_gems.export import flatbuffer
from tf_gems.export.run_litert import in_floats
from tf_gems.export.run_litert import in_integers
from tf_gems.export.run_litert import match

_MODULE = "tflite_micro"
# Beside the tensors: what the runtime keeps of them, and of the operators.
_SLACK_BYTES = 1 << 20


def version():
    """Returns the name and version of the runtime.

    Raises:
        RuntimeError: If it is not installed.
    """
    if importlib.util.find_spec(_MODULE) is None:
        raise RuntimeError(
            "A file for microcontrollers is run by their runtime before it is "
            f"written. Received: a Python without the module `{_MODULE}`. "
            "Install it by `pip install tf_gems[micro]`."
        )
    return f"tflite-micro {importlib.metadata.version('tflite-micro')}"


def run_micro(path, feeds):
    """Runs a TFLite file by the interpreter for microcontrollers.

    Feeds and outputs are lists of dicts from names to arrays of floats.
    """
    from tflite_micro.python.tflite_micro import runtime

    with open(path, "rb") as file:
        data = file.read()
    model = flatbuffer.read(data)
    graph = model.subgraphs[0]
    # Memory that is enough for every tensor at once.
    sizes = [8 * math.prod(map(int, t.shape)) for t in graph.tensors]
    interpreter = runtime.Interpreter.from_bytes(
        data, arena_size=2 * sum(sizes) + _SLACK_BYTES
    )
    [signature] = model.signatureDefs
    taken = _details(graph, graph.inputs, signature.inputs)
    given = _details(graph, graph.outputs, signature.outputs)
    names = match(feeds[0], taken)
    found = []
    for feed in feeds:
        for name, value in feed.items():
            detail = taken[names[name]]
            interpreter.set_input(in_integers(value, detail), detail["place"])
        interpreter.invoke()
        outputs = {
            name: np.array(interpreter.get_output(detail["place"]))
            for name, detail in given.items()
        }
        found.append(in_floats(outputs, given))
    return found


def _details(graph, indices, named):
    """Returns a dict from names to what is known of inputs or outputs."""
    places = {int(index): place for place, index in enumerate(indices)}
    found = {}
    for entry in named:
        tensor = graph.tensors[entry.tensorIndex]
        quantization = tensor.quantization
        scale, zero = 0.0, 0
        if quantization is not None and quantization.scale is not None:
            scale = np.float32(quantization.scale[0])
            zero = int(quantization.zeroPoint[0])
        found[entry.name.decode()] = {
            "place": places[int(entry.tensorIndex)],
            "dtype": flatbuffer.dtype_of(tensor),
            "quantization": (scale, zero),
        }
    return found
