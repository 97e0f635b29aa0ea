"""Reports which 1x1 convolutions of a model run faster with zeros."""

import dataclasses
import os
import struct

import numpy as np

from tf_gems.export import flatbuffer
from tf_gems.export import forms
from tf_gems.export import weight_rows
from tf_gems.export import xnnpack
from tf_gems.export.conversion import convert
from tf_gems.export.network import Network
from tf_gems.filter_policies import LEAST_SPARSITY
from tf_gems.network import masked_network
from tf_gems.tables import DataReport
from tf_gems.tables import Table
from tf_gems.targets import check_path


@dataclasses.dataclass
class ReadinessReport(DataReport):
    """The 1x1 convolutions of a model for which XNNPACK can use zeros.

    Args:
        obstacle: String, the reason if XNNPACK uses sparse kernels for no part
            of the model, or `None`.
        layers: List of dicts, one for each 1x1 convolution: `name`, `shape`
            and `zeros` of its kernel, and `reason`, the reason if its zeros
            save no time, or `None`.

    Example:

    ```python
    print(tf_gems.export.readiness_report(model))
    ```
    """

    obstacle: str | None
    layers: list
    _computed = ("eligible", "sparsity", "faster")

    @property
    def eligible(self):
        """Whether all 1x1 convolutions can run sparsely."""
        return bool(self.layers) and not any(x["reason"] for x in self.layers)

    @property
    def sparsity(self):
        """Fraction of zeros among the weights that XNNPACK counts."""
        counted = [x for x in self.layers if not x["reason"]]
        size = sum(int(np.prod(x["shape"])) for x in counted)
        return sum(x["zeros"] for x in counted) / size if size else 0.0

    @property
    def faster(self):
        """Whether there are enough zeros for XNNPACK to use them."""
        return self.sparsity > LEAST_SPARSITY

    def _parts(self):
        rows = []
        for layer in self.layers:
            shape, reason = tuple(layer["shape"]), layer["reason"]
            answer = "cannot run sparse" if reason else "can run sparse"
            if reason not in (None, self.obstacle):
                answer += f": {reason}"
            zeros = f"{layer['zeros'] / np.prod(shape):.1%}"
            rows.append([layer["name"], shape, zeros, answer])
        table = Table(["weight", ">shape", ">zeros", "XNNPACK"], rows)
        enough = "enough" if self.faster else "too few"
        verdict = (
            f"{self.sparsity:.1%} of the weights that XNNPACK counts are "
            f"zero, {enough} to run faster. More than {LEAST_SPARSITY:.1%} "
            "are required."
        )
        if self.obstacle:
            verdict = "No zero of this model saves time with XNNPACK: "
            verdict += f"{self.obstacle}."
        return [table, verdict] if rows else [verdict]


def readiness_report(model):
    """Returns which 1x1 convolutions of a model run faster with zeros.

    The model is converted, and the converted graph is examined: the converter
    folds normalization and merges padding. XNNPACK uses zeros on ARM, on x86
    without AVX, and in browsers. On x86 with AVX it computes all 1x1
    convolutions densely. See `tf_gems.export.xnnpack`.

    Args:
        model: Keras model, `tf_gems.SparseModel` with a ticket, or path of a
            `.tflite` file, with dense or sparse weights.

    Returns:
        `tf_gems.export.ReadinessReport`.

    Raises:
        RuntimeError: If nothing has been pruned yet in a `SparseModel`, or
            Keras does not run on TensorFlow.
        ValueError: If the model is not a built Keras 3 model.

    Example:

    ```python
    model = tf_gems.zoo.mobilenet_v1((96, 96, 3), 10)
    assert tf_gems.export.readiness_report(model).eligible
    ```
    """
    if isinstance(model, str | os.PathLike):
        path = check_path(
            model, "model", "Pass the name of a file that ends in .tflite."
        )
        if not path.is_file():
            raise FileNotFoundError(
                "`model` must be a model or the path of a file. Received: "
                f"model='{path}', which is not a file. Check the name."
            )
        try:
            return _report(flatbuffer.read(path.read_bytes()), {})
        except (
            *(ArithmeticError, AttributeError, LookupError, MemoryError),
            *(TypeError, ValueError, struct.error),
        ) as error:
            raise ValueError(
                "The operators of TFLite are read from a TFLite file. "
                f"Received: model='{path}', which is not one, or is damaged "
                f"({type(error).__name__}). Pass the name of a file that ends "
                "in .tflite."
            ) from error
    file = flatbuffer.read(dense_file(model))
    with masked_network(model) as plain:
        names = weight_rows.names_of(file, plain)
    return _report(file, names)


def dense_file(model):
    """Returns the bytes of a TFLite file with dense weights."""
    network = Network(model)
    signature = network.signature.in_float32()
    if signature.batch_size is None:
        signature = signature.with_sizes([1] * len(signature.specs))
    with network.masked() as plain:
        data, _ = convert(plain, signature, forms.get("float32"))
    return data


def _report(file, names):
    rows = weight_rows.rows(file, names)
    graph = xnnpack.Graph(file, file.subgraphs[0])
    obstacle = graph.obstacle()
    layers = []
    for index, reason in graph.pointwise():
        row = rows.get((0, index))
        if row is not None:
            kept = {name: row[name] for name in ("name", "shape", "zeros")}
            layers.append({**kept, "reason": reason or obstacle})
    return ReadinessReport(obstacle, layers)
