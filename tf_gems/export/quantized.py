"""A quantization-aware model as a graph that the converter understands."""

import contextlib

from keras import ops

from tf_gems.export import flatbuffer
from tf_gems.network import masked_network
from tf_gems.quantization import QuantizationAwareModel
from tf_gems.quantization.fake_quantization import quantize_kernel


def is_quantized(model):
    """Whether a model has ranges for 8-bit activations."""
    return isinstance(model, QuantizationAwareModel)


def check_quantized(form, compact):
    """Raises an error for an export that would drop what was learned."""
    remedy = "pass the float model that `tf_gems.strip` returns"
    if form.name != "int8":
        raise ValueError(
            "A quantization-aware model can only be exported in 8-bit "
            f"integers. Received: form={form.name!r}. Pass form='int8', or "
            f"{remedy}."
        )
    if compact:
        raise ValueError(
            "The ranges of a quantization-aware model belong to its own "
            "channels. Received: compact=True. Call `tf_gems.compact` before "
            f"`tf_gems.QuantizationAwareModel`, or {remedy}."
        )


@contextlib.contextmanager
def quantized_network(model):
    """Yields a `QuantizedNetwork`, which is traced for the 8-bit file.

    Within the block the kernels hold their fake-quantized values. Their
    largest value in a channel is `127 * scale`, so the converter finds the
    same scale and the same integers again, also after it has folded a
    normalization into them. Activations pass through the operator
    `FakeQuantWithMinMaxVars`, from which it takes their ranges.
    """
    with masked_network(model) as plain, contextlib.ExitStack() as stack:
        for kernel, axes in model.gem.kernels:
            stack.callback(kernel.assign, ops.copy(kernel))
            kernel.assign(quantize_kernel(kernel, axes))
        yield QuantizedNetwork(plain, model.gem)


class QuantizedNetwork:
    """What an export needs of a Keras model, computed with rounding.

    Args:
        model: The user's Keras model.
        layer: `QuantizedLayer` around it.
    """

    def __init__(self, model, layer):
        self.model = model
        self.layer = layer
        self.name = model.name
        self.weights = model.weights
        self.limits = layer.limits()
        if any(low >= high for low, high in self.limits):
            raise ValueError(
                "Ranges of activations must be calibrated before an export. "
                f"Received: '{model.name}' with empty ranges. Load the "
                "weights of the original quantization-aware model, or create "
                "one with `representative_data`."
            )

    def __call__(self, inputs, training=False):
        return self.layer.run_exported(inputs, self.limits)

    def _flatten_layers(self, *args, **kwargs):
        return self.model._flatten_layers(*args, **kwargs)


def float_operators(file):
    """Returns the names of operators of an 8-bit file that compute floats."""
    return {
        kind
        for graph in file.subgraphs
        for operator in graph.operators
        for index in operator.outputs
        if (kind := flatbuffer.operator_name(file, operator))
        not in ("DEQUANTIZE", "DENSIFY")
        and (dtype := flatbuffer.dtype_of(graph.tensors[index])) is not None
        and dtype.kind == "f"
    }


def output_step(file):
    """Returns the largest step of the outputs of an 8-bit file, a float.

    It is 0 if all outputs are computed in floats.
    """
    graph, sources = file.subgraphs[0], {}
    for operator in graph.operators:
        if flatbuffer.operator_name(file, operator) == "DEQUANTIZE":
            sources[int(operator.outputs[0])] = int(operator.inputs[0])
    scales = []
    for index in map(int, graph.outputs):
        quantization = graph.tensors[sources.get(index, index)].quantization
        if quantization is not None and quantization.scale is not None:
            scales += [float(s) for s in quantization.scale]
    return max(scales, default=0.0)


def refuse_floats(floats, name):
    """Raises an error for a model's name and operators that compute floats."""
    if floats:
        raise RuntimeError(
            "The file of a quantization-aware model must compute in 8-bit "
            f"integers. Received: '{name}', for which TensorFlow's converter "
            f"leaves {floats} in floats. Export the model that "
            "`tf_gems.strip` returns, with `representative_data`."
        )


def describe_integers(file):
    """Returns a sentence for each input and output that is an integer."""
    graph, [signature] = file.subgraphs[0], file.signatureDefs
    kinds = {
        "Input": flatbuffer.details(graph, graph.inputs, signature.inputs),
        "Output": flatbuffer.details(graph, graph.outputs, signature.outputs),
    }
    return [
        f"{kind} '{name}': an integer q stands for "
        f"{detail['quantization'][0]:.9g} * (q - {detail['quantization'][1]})."
        for kind, details in kinds.items()
        for name, detail in details.items()
        if detail["dtype"] == "int8"
    ]
