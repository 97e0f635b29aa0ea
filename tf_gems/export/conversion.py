"""Conversion of a traced network to a TFLite file with dense weights."""

import contextlib
import os
import re
import tempfile

import keras

from tf_gems import _keras
from tf_gems.export import worker
from tf_gems.export.network import computed_in_float32
from tf_gems.export.tracing import nodes
from tf_gems.export.tracing import trace
from tf_gems.files import TEMPORARY
from tf_gems.quiet import quiet


class ConversionError(RuntimeError):
    """Raised if a network cannot be converted to a form.

    It is final if another batch size cannot help.
    """

    def __init__(self, message, final):
        super().__init__(message)
        self.final = final


# Hints for operators whose name does not say which Keras call made them.
_HINTS = {
    "BitwiseAnd": (
        "`keras.ops.argmax` and `argmin` use this operator: return their "
        "argument from the model, and compute them outside of it. "
    ),
    "StridedSlice": (
        "A causal mask of unknown length uses this operator: give "
        "`keras.Input` the length of the sequences. "
    ),
}


# Operators that draw random numbers from a state of their own.
_DRAWS = re.compile(
    "Random(Gamma|Poisson|Shuffle|StandardNormal|Uniform)|Multinomial|"
    "(Parameterized)?TruncatedNormal"
)


def convert(
    plain,
    signature,
    form,
    examples=(),
    io="float32",
    progress=None,
    inside=None,
):
    """Converts a Keras model to a TFLite file with dense weights.

    Returns:
        `(data, traced)`: the bytes of the file, and a `tracing.Traced`.
    """
    step = progress.step if progress else lambda _: None
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=inside) as directory:
        step("tracing the network")
        with computed_in_float32(plain):
            traced = traced_or_refused(plain, signature)
            with quiet():
                traced.save(directory)
        step("converting it")
        size = sum(
            variable.shape.num_elements() * variable.dtype.size
            for variable in traced.function.variables
        )
        seconds = worker.seconds_for(size, len(examples))
        target = os.path.join(directory, "dense.tflite")
        try:
            worker.convert(directory, target, form.name, examples, io, seconds)
        except worker.WorkerError as error:
            raise _explained(error, traced, form) from error
        with open(target, "rb") as file:
            return file.read(), traced


def traced_or_refused(plain, signature):
    """Returns `tracing.trace` of a model, or an error that names the model."""
    try:
        return trace(plain, signature)
    except Exception as error:
        raise RuntimeError(
            "A network is exported as a TensorFlow graph, traced with "
            f"`training=False`. Received: '{plain.name}', which cannot be "
            f"traced: {_first_line(error)} Write its layers with `keras.ops` "
            "or TensorFlow, without NumPy or Python conditions on values of "
            "tensors."
        ) from error


@contextlib.contextmanager
def random_numbers_named(traced):
    """Names what draws random numbers, if a comparison fails in the block.

    TensorFlow's own operators restart in each graph, so two graphs of one
    network draw different numbers.
    """
    try:
        yield
    except RuntimeError as error:
        graph = traced.function.graph.as_graph_def()
        operators = sorted({n.op for n in nodes(graph) if _DRAWS.match(n.op)})
        if not operators:
            raise
        layers = _named(_layers_with(operators, traced))
        raise RuntimeError(
            "The outputs of an export must equal those of the Keras model. "
            f"Received: '{traced.model.name}'{layers}, which draws different "
            f"random numbers in each graph, with {' and '.join(operators)}, "
            "so that outputs cannot be compared. Nothing was written. Remove "
            "the noise from the exported model; or draw it from "
            "`keras.random` with a `keras.random.SeedGenerator`, whose state "
            "a SavedModel keeps; or pass a large `tolerance`, such as 100, "
            "to skip the comparison."
        ) from error


@contextlib.contextmanager
def causes_named(traced):
    """Names what a TFLite file computes wrongly, if a comparison fails.

    Besides random numbers it is the activation of a product of two computed
    matrices: TensorFlow's converter fuses it into a dense layer, makes a batch
    product of that and forgets the activation.
    """
    try:
        with random_numbers_named(traced):
            yield
    except RuntimeError as error:
        products = _computed_products(traced.function)
        if not products:
            raise
        layers = _named(_layers_of(products, traced.model))
        raise RuntimeError(
            "The outputs of an export must equal those of the Keras model. "
            f"Received: '{traced.model.name}'{layers}, which multiplies two "
            "computed matrices. If a ReLU follows, TensorFlow's converter "
            "loses it, also without zeros. Nothing was written. Multiply "
            "with a batch axis: `ops.matmul(a[None], b[None])[0]`. The "
            f"comparison found: {error}"
        ) from error


def _computed_products(function):
    """Returns the names of products of two matrices that follow from inputs."""
    captured = {id(inside) for _, inside in function.graph.captures}
    follows = {
        tensor.op for tensor in function.inputs if id(tensor) not in captured
    }
    found = []
    for op in function.graph.get_operations():  # in the order of computation
        given = [tensor.op in follows for tensor in op.inputs]
        if any(given):
            follows.add(op)
        if op.type == "MatMul" and all(given):
            found.append(op.name)
    return found


def _explained(error, traced, form):
    """Returns an error that explains why the converter failed.

    The converter's own message is the cause of the error.
    """
    text = f"{error}\n{error.log}"
    where = f"'{traced.model.name}'"
    operators = _unsupported(text)
    if operators:
        layers = _named(_layers_with(operators, traced))
        hints = "".join(_HINTS.get(name, "") for name in operators)
        return ConversionError(
            "A TFLite file can only contain TFLite operators. Received: "
            f"{where}{layers}, which uses {' and '.join(operators)} in a way "
            "that TensorFlow's converter cannot express with TFLite "
            "operators. It fails for the same network without zeros. "
            f"{hints}Use `tf_gems.export_saved_model`, which supports every "
            "operator of TensorFlow, or replace the layer. Preprocessing, "
            "such as string lookups, can be left out of the exported model.",
            final=False,  # some operators need a known batch size
        )
    # The converter's own locations.
    lines = [x for x in text.splitlines() if "error" in x or "loc(" in x]
    paths = re.findall(r'"([\w./>-]+)@__inference', "\n".join(lines))
    layers = _layers_of(paths[:1], traced.model)
    if error.crashed and not layers and form.name == "int8":
        layers = _recurrent(traced.model)
    if error.crashed:
        what = f"for which TensorFlow's converter {error.crashed}"
    else:
        what = f"which TensorFlow's converter rejects: {_reason(error)}"
    remedy = "Use `tf_gems.export_saved_model`."
    if form.alternative is not None:
        remedy = f"Pass form={form.alternative!r}."
    return ConversionError(
        f"An export must run. Received: form={form.name!r}, "
        f"{where}{_named(layers)}, {what}. The converter fails "
        f"for the same network without zeros. {remedy}",
        final=error.crashed is not None,
    )


def _named(layers):
    if not layers:
        return ""
    several = "layers" if len(layers) > 1 else "layer"
    return f", {several} " + ", ".join(f"'{layer}'" for layer in layers)


def _unsupported(text):
    """Returns the operators that the converter says TFLite does not have."""
    found = set(re.findall(r"'tf\.(\w+)' op is neither a custom op", text))
    for names in re.findall(r"^(?:TF Select|Custom) ops: (.*)$", text, re.M):
        found.update(name.strip() for name in names.split(","))
    found.update(re.findall(r"Op type not registered '(\w+)'", text))
    return sorted(name for name in found if name)


def _layers_with(operators, traced):
    """Returns the names of the layers that have such operators."""
    graph = traced.function.graph.as_graph_def()
    paths = [node.name for node in graph.node if node.op in operators]
    return _layers_of(paths, traced.model)


def _layers_of(paths, model):
    """Returns the innermost layers that contain the given graph nodes."""
    names = {part.name for part in _keras.flatten_layers(model)} - {model.name}
    found = []
    for path in paths:
        for scope in reversed(path.split("/")[:-1]):
            # A layer enters its scope twice, so the graph adds a number: the
            # scope `dense_1` is that of `dense`, also beside a `dense_1`.
            options = [re.sub(r"_\d+$", "", scope), scope]
            known = [name for name in options if name in names]
            if known:
                found += known[:1]
                break
    return list(dict.fromkeys(found))


def _recurrent(model):
    """Returns the names of recurrent layers, whose int8 conversion crashes."""
    parts, inner = _keras.flatten_layers(model), set()
    for layer in parts:
        if isinstance(layer, keras.layers.Bidirectional):
            inner |= {id(layer.forward_layer), id(layer.backward_layer)}
    kinds = keras.layers.RNN | keras.layers.Bidirectional
    return [
        layer.name
        for layer in parts
        if isinstance(layer, kinds) and id(layer) not in inner
    ]


def _reason(error):
    """Returns the first sentence of the converter's error, without MLIR."""
    line = _lines(error)[0].removeprefix("ConverterError: ")
    if "loc(" in line or "%" in line or "__inference" in line:
        return "its operators are not supported by TFLite"
    return line[:200].rstrip(". ")


def _lines(error):
    """Returns the lines of an error that are not empty, or its type."""
    text = re.sub(r"\x1b\[\d*m", "", str(error))  # Keras prints in bold
    lines = [line.strip() for line in text.splitlines()]
    return [line for line in lines if line] or [type(error).__name__]


def _first_line(error):
    lines = _lines(error)
    line = lines[0]
    if line.startswith("Exception encountered when calling") and lines[1:]:
        line += f" {lines[1]}"
    return line.rstrip(".") + "."
