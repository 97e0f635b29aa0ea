"""What LiteRT computes in 8-bit integers for each layer and operation.

Every layer is written as operators between which LiteRT rounds to 8 bits. The
kind of an operator says how its output is rounded:

| kind | its output |
| --- | --- |
| `"linear"` | A convolution or matrix product. A normalization or clipping that alone reads it is computed before rounding. |
| `"transposed"` | A transposed convolution. A normalization that alone reads it is computed before rounding. |
| `"normalization"` | Folded into a linear operator, or a product and a sum. |
| `"arithmetic"` | A sum, difference or product. A clipping that alone reads it is computed before rounding. |
| `"clip"` | ReLU or ReLU6, rounded to a range of its own. |
| `"own"` | Rounded to a range of its own. |
| `"concatenation"` | Rounded to a range of its own, and so is what it alone reads. |
| `"fixed"` | Rounded to a range that LiteRT prescribes. |
| `"same"` | Values of its input, not rounded again. |
| `"rounded"` | Rounded to the range of its input. |
| `"averaged"` | Likewise, of average pooling. |
| `"constant"` | Computed from weights alone, and not rounded. What reads it rounds it. |
| `"identity"` | No operator at all in LiteRT. |
"""  # noqa: E501

import dataclasses

import keras

from tf_gems.quantization.calls import trace_function

# Rules of calls of which an operand may be computed from weights alone.
WITH_CONSTANTS = set()
UNKNOWN = "which is not written with `keras.ops`"


@dataclasses.dataclass(eq=False)
class Operator:
    """One operator.

    Args:
        kind: String, see above.
        compute: Function of a list of tensors, which returns a tensor.
        inputs: List of keys, the tensors that it reads.
        output: Key of its output.
        name: String, the path of its layer.
        range: `(low, high)` of a `"fixed"` one. Defaults to `None`.
        call: `Call` of a `"normalization"`. Defaults to `None`.
    """

    kind: str
    compute: object
    inputs: list
    output: object
    name: str
    range: tuple | None = None
    call: object = None


class Writer:
    """Writes calls as operators.

    Args:
        rule_of: Function from a layer or operation to its rule, or `None`.
        weights: Dict from symbolic tensors to the weights that they stand for.

    Attributes:
        operators: List of `Operator`.
        kernels: List of `(variable, axes)`, the kernels to quantize, with the
            axes of their output channels.
        refused: Dict from the paths of calls to why they have no operator.
    """

    def __init__(self, rule_of, weights):
        self._rule_of = rule_of
        self.weights = weights
        self.operators = []
        self.kernels = []
        self.refused = {}
        self._constants = set(weights)

    def write(self, call):
        """Adds the operators of a call."""
        rule = self._rule_of(call.operation)
        outputs = keras.tree.flatten(call.outputs)
        constant = [self.is_constant(x) for x in call.inputs]
        try:
            if len(outputs) == 1 and constant and all(constant):
                self._constants.add(outputs[0])
                rule = simple("constant")
            elif call.rests:
                rule = simple("identity")
            if rule is None:
                raise Refusal(name_kind(call.operation))
            if len(outputs) != 1:
                raise Refusal("with several outputs")
            if any(constant) and not (all(constant) or rule in WITH_CONSTANTS):
                raise Refusal(
                    f"{name_kind(call.operation)}, which reads a weight"
                )
            if call.activity_regularizer is None:
                rule(self, call, outputs[0])
                return
            between = Between()
            rule(self, call, between)
            self.add("identity", call.add_penalty, [between], call, outputs[0])
        except Refusal as refusal:
            self.refused[call.path] = str(refusal)

    def is_constant(self, x):
        """Whether a symbolic tensor is computed from weights alone."""
        return isinstance(x, keras.KerasTensor) and x in self._constants

    def add(self, kind, compute, inputs, call, output=None, fixed=None):
        """Adds an operator, and returns the key of its output.

        Args:
            kind, compute: See `Operator`.
            inputs: List of symbolic tensors or keys.
            call: `Call`.
            output: Symbolic tensor or key. Defaults to `None`: a new key.
            fixed: See `Operator`. Defaults to `None`.
        """
        output = Between() if output is None else output
        self.operators.append(
            Operator(kind, compute, inputs, output, call.path, fixed, call)
        )
        return output

    def add_kernel(self, variable, axes=(-1,)):
        if not isinstance(variable, keras.Variable):
            raise Refusal("whose kernel is a sum with a low-rank adapter")
        if all(variable is not known for known, _ in self.kernels):
            self.kernels.append((variable, axes))

    def follow(self, function, x, call, output, spec):
        """Adds the operations of a user's function of one tensor.

        Args:
            function: Function, or Keras layer.
            x: Symbolic tensor or key.
            call, output: See `add`.
            spec: Symbolic tensor of the shape and dtype of `x`.
        """
        symbol = keras.KerasTensor(spec.shape, spec.dtype)
        try:
            calls, result = trace_function(function, symbol, call.path)
        except Exception:
            result = None
        if not isinstance(result, keras.KerasTensor):
            self.refused[call.path] = UNKNOWN
            return
        self.add("identity", lambda v: v[0], [x], call, symbol)
        for inner in calls:
            self.write(inner)
        self.add("identity", lambda v: v[0], [result], call, output)


class Refusal(Exception):
    """Raised for what LiteRT does not compute in 8-bit integers."""


class Between:
    """Key of a tensor that is inside a layer."""


def name_kind(operation):
    """Returns what kind a layer or operation is, for messages."""
    kind = type(operation)
    if isinstance(operation, keras.layers.Layer):
        return f"of type {kind.__name__}"
    return f"the operation `{kind.__name__.lower()}`"


def simple(kind, fixed=None):
    """Returns the rule of a call that is one operator."""

    def rule(writer, call, output):
        writer.add(kind, call.compute, call.inputs, call, output, fixed)

    return rule
