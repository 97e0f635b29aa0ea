"""Where an 8-bit network rounds: the operators and ranges of a model."""

import dataclasses

import keras
from keras import ops

from tf_gems.quantization.calls import trace
from tf_gems.quantization.operators import is_known
from tf_gems.quantization.operators import rule_of
from tf_gems.quantization.operators import split_normalization
from tf_gems.quantization.writer import Writer

# What is computed before an output is rounded, if nothing else reads it. A
# concatenation rounds each of its values alike: once is enough.
_ABSORBED_BY = {
    "linear": ("clip", "normalization", "concatenation"),
    "transposed": ("normalization", "concatenation"),
    "normalization": ("clip", "concatenation"),
    "arithmetic": ("clip", "concatenation"),
    "clip": ("concatenation",),
    "own": ("concatenation",),
    "concatenation": ("concatenation",),
    "fixed": (),
    "same": (),
    "rounded": (),
    "averaged": (),
    "constant": (),
    "identity": (),
}
# What has the range of its input.
_OF_INPUT = ("same", "rounded", "averaged", "identity")


@dataclasses.dataclass(frozen=True)
class Rounding:
    """How a tensor is rounded.

    Args:
        place: Integer, the place of its range; `None` for a fixed one.
        range: `(low, high)` of a fixed one, or `None`.
        learns: Whether the range follows this tensor.
        ties_away: See `quantize_activation`. Defaults to `False`.
    """

    place: int | None
    range: tuple | None
    learns: bool
    ties_away: bool = False


class Graph:
    """A model as the operators that LiteRT computes in 8-bit integers.

    Args:
        model: Built Keras model.
        inputs: Structure of symbolic tensors that it takes.
        training: Bool, whether it computes as in training.

    Attributes:
        operators: List of `Operator`.
        names: List of strings, the tensor of each range.
        kernels: List of `(variable, axes)`, see `Writer`.

    Raises:
        ValueError: If a part of the model has no such operator. All of them
            are named.
    """

    def __init__(self, model, inputs, training):
        calls, self.outputs, self._weights = trace(
            model, inputs, training, is_known
        )
        writer = Writer(rule_of, self._weights)
        for call in calls:
            writer.write(call)
        _refuse(writer.refused, model)
        self.kernels = writer.kernels
        self.inputs = keras.tree.flatten(inputs)
        self.names = []
        self._training = training
        self._of_input = [self._own(_name_of(x)) for x in self.inputs]
        self._place(writer.operators)

    def _own(self, name):
        """Returns a rounding to a new range."""
        self.names.append(name)
        return Rounding(len(self.names) - 1, None, True)

    def _place(self, operators):
        """Decides what is rounded, and how.

        See `tf_gems.quantization.writer` for the kinds.
        """
        root = {}  # of what comes out of operators that do not exist in LiteRT
        for operator in operators:
            if operator.kind == "identity":
                [x] = operator.inputs
                root[operator.output] = root.get(x, x)
        readers = {}
        for operator in operators:
            if operator.kind != "identity":
                for x in operator.inputs:
                    readers.setdefault(root.get(x, x), []).append(operator)
        for x in keras.tree.flatten(self.outputs):
            readers.setdefault(root.get(x, x), []).append(None)
        made_by = {operator.output: operator for operator in operators}
        found = dict(zip(self.inputs, self._of_input, strict=True))
        self.operators = []
        self.rounding = []
        for operator in operators:
            inputs = [root.get(x, x) for x in operator.inputs]
            pair = [operator]
            if operator.kind == "normalization":
                before = made_by.get(inputs[0])
                if before is None or found.get(before.output) is not None:
                    pair = split_normalization(operator, self._training)
                    self._append(pair[0], self._own(operator.name))
            last, output = pair[-1], operator.output
            reader = readers.get(output, [])
            reader = reader[0] if len(reader) == 1 else None
            rounding = None
            absorbed = _ABSORBED_BY[last.kind]
            if last.kind == "normalization" and before.kind == "transposed":
                absorbed = ("concatenation",)
            if last.kind == "fixed":
                rounding = Rounding(None, operator.range, False)
            elif last.kind == "clip" and _kind(made_by, inputs) in (
                "rounded",
                "averaged",
            ):
                # Both are one operator, with one range.
                before = found[inputs[0]]
                rounding = Rounding(before.place, before.range, False)
            elif last.kind not in (*_OF_INPUT, "constant"):
                if reader is None or reader.kind not in absorbed:
                    rounding = self._own(operator.name)
            found[output] = rounding
            if last.kind in ("same", "identity"):
                found[output] = found[inputs[0]]
            elif last.kind in ("rounded", "averaged"):
                before = found[inputs[0]]
                rounding = Rounding(
                    before.place,
                    before.range,
                    False,
                    last.kind == "averaged",
                )
                found[output] = rounding
            self._append(last, rounding)

    def _append(self, operator, rounding):
        self.operators.append(operator)
        self.rounding.append(rounding)

    def run(self, inputs, round_):
        """Computes the outputs.

        Args:
            inputs: Flat list of tensors.
            round_: Function of a tensor and a `Rounding`, which returns the
                rounded tensor.

        Returns:
            Structure of tensors.
        """
        values = {
            key: round_(x, rounding)
            for key, x, rounding in zip(
                self.inputs, inputs, self._of_input, strict=True
            )
        }
        for symbol, weight in self._weights.items():
            values[symbol] = ops.convert_to_tensor(weight)
        for operator, rounding in zip(
            self.operators, self.rounding, strict=True
        ):
            value = operator.compute([values[x] for x in operator.inputs])
            if rounding is not None:
                value = round_(value, rounding)
            values[operator.output] = value
        return keras.tree.map_structure(lambda x: values[x], self.outputs)


def _name_of(tensor):
    """Returns the name that an input was given, not one that is numbered."""
    return "input" if tensor.name.startswith("keras_tensor") else tensor.name


def _kind(made_by, inputs):
    """Returns the kind of the operator that makes an input."""
    operator = made_by.get(inputs[0])
    return operator and operator.kind


def _refuse(refused, model):
    if refused:
        named = "; ".join(f"'{path}' {why}" for path, why in refused.items())
        raise ValueError(
            "Quantization-aware training requires layers that LiteRT "
            f"computes in 8-bit integers. Received: '{model.name}' with "
            f"{len(refused)} layers that may not be: {named}. Replace them, "
            "remove them from the model, or quantize after training: "
            '`tf_gems.export_litert(model, path, form="int8", '
            "representative_data=...)`."
        )
