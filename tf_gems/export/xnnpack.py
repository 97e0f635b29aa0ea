"""Whether sparse weights are safe under XNNPACK, TFLite's engine on CPUs.

On ARM, and on x86 without AVX, XNNPACK computes a part of a model that has
`DENSIFY` operators by channels (NCHW) instead of by pixels, to make use of
the zeros of its 1x1 convolutions. Such a part begins with a *stem* (a 3x3
convolution of stride 2 over three channels, padded by 1 on every side) and
ends with a global average. If an operator between the two does not know that
layout, XNNPACK computes garbage and reports no error.

A stem is thus what makes a model unsafe. With one, all operators must be
among those whose results were verified on an emulated CPU without AVX, or
the 1x1 convolutions must have too few zeros for its sparse kernels. The rule
counts the zeros of dense weights as well: in an unsafe model no weight at all
may have a `DENSIFY` operator.

Source: `xnn_subgraph_rewrite_for_nchw` in XNNPACK's `src/subgraph.c`.
"""

import numpy as np

from tf_gems.export import flatbuffer
from tf_gems.filter_policies import LEAST_SPARSITY

_ELEMENTWISE = {"HARD_SWISH", "LOGISTIC", "RELU", "RELU6"}
_HEAD = {"FULLY_CONNECTED", "LOGISTIC", "RELU", "RELU6", "SOFTMAX"}

_STEM = "a 3x3 convolution of stride 2 over three channels, padded by 1 on "
_STEM += "every side"


def reason_against_sparse(model):
    """Returns why sparse weights are unsafe in a `ModelT`, or `None`."""
    for graph in model.subgraphs:
        reason = Graph(model, graph).reason()
        if reason is not None:
            return reason
    return None


class Graph:
    """A subgraph of a `ModelT`, and what XNNPACK does with it.

    Reasons are strings that end a sentence.
    """

    def __init__(self, model, graph):
        self.model = model
        self.graph = graph
        self.schema = flatbuffer.load_schema()
        self.stored = flatbuffer.stored(model, graph)
        # Constants are expanded before the network is computed.
        self.operators = [
            operator
            for operator in graph.operators
            if not flatbuffer.expands_constant(operator, self.stored)
        ]
        self.names = [
            flatbuffer.operator_name(model, o) for o in self.operators
        ]
        self.producers = {
            int(index): number
            for number, operator in enumerate(self.operators)
            for index in operator.outputs
        }
        self.stems = [n for n in range(len(self.names)) if self._is_stem(n)]

    def reason(self):
        """Returns why sparse weights are unsafe in this graph, or `None`."""
        if not self._meets_sparse_pointwise():
            return None
        return self._reason_after_stem()

    def obstacle(self):
        """Returns why XNNPACK never computes the graph by channels, or `None`.

        The outputs are right then, but not faster for the zeros.
        """
        if not any(self._is_convolution(self.operators[n]) for n in self.stems):
            return f"the network does not begin with {_STEM}"
        return self._reason_after_stem()

    def pointwise(self):
        """Returns the 1x1 convolutions of the graph.

        Returns:
            List of `(index, reason)`: the index of the tensor that stores the
            kernel, and why XNNPACK has no sparse kernel for it, or `None`.
        """
        found = []
        for name, operator in zip(self.names, self.operators, strict=True):
            if name != "CONV_2D":
                continue
            if self._shape(operator.inputs[1])[1:3] != (1, 1):
                continue
            reason = None
            if not self._is_convolution(operator):
                reason = "it has a stride, a dilation or groups"
            elif self._shape(operator.inputs[0])[1:3] == (1, 1):
                reason = "its feature maps have a single pixel"
            index = int(operator.inputs[1])
            found.append((self.stored.get(index, index), reason))
        return found

    def reasons_by_kernel(self):
        """Returns why XNNPACK uses no sparse kernel for 1x1 convolutions.

        Returns:
            Dict from the indices of the tensors that store the kernels to a
            reason, or `None` for those that run sparsely.
        """
        reasons, obstacle = dict(self.pointwise()), self.obstacle()
        values = [
            self._constant(i) for i, reason in reasons.items() if not reason
        ]
        values = [value for value in values if value is not None]
        size = sum(value.size for value in values)
        kept = sum(np.count_nonzero(value) for value in values)
        if obstacle is None and size - kept <= LEAST_SPARSITY * size:
            obstacle = "the 1x1 convolutions have too few zeros"
        return {index: obstacle or reason for index, reason in reasons.items()}

    def _reason_after_stem(self):
        """Returns what XNNPACK cannot compute by channels, or `None`."""
        if len(self.stems) > 1 or len(self.graph.inputs) > 1:
            return "the network has several stems or inputs"
        for number, name in enumerate(self.names):
            if not self._is_verified(number):
                return f"the operator {name} follows the stem"
        if self.names.count("MEAN") != 1:
            return "the stem does not lead to a single global average pooling"
        if any(self._rank(index) > 2 for index in self.graph.outputs):
            return "the network returns feature maps"
        return None

    def _shape(self, index):
        return tuple(self.graph.tensors[index].shape)

    def _rank(self, index):
        return len(self._shape(index))

    def _constant(self, index):
        index = self.stored.get(int(index), int(index))
        return flatbuffer.constant(self.model, self.graph.tensors[index])

    def _has_float_kernel(self, operator):
        """Whether it computes in floats: XNNPACK's integers have no NCHW."""
        kernel = self._constant(operator.inputs[1])
        return kernel is None or kernel.dtype.kind == "f"

    def _is_stem(self, number):
        """Whether XNNPACK could begin here, padding not looked at closely."""
        if self.names[number] != "CONV_2D":
            return False
        operator = self.operators[number]
        options = operator.builtinOptions
        return (
            self._has_float_kernel(operator)
            and self._shape(operator.inputs[1])[1:] == (3, 3, 3)
            and 2 in (options.strideH, options.strideW)
            and options.padding == self.schema.Padding.VALID
            and self._padding(operator) is not None
        )

    def _padding(self, operator):
        """Returns the operator that pads the first input, or `None`."""
        number = self.producers.get(int(operator.inputs[0]))
        if number is None or "PAD" not in self.names[number]:
            return None
        return number

    def _meets_sparse_pointwise(self):
        """Whether a stem leads to a 1x1 kernel of more than 2/3 zeros.

        XNNPACK counts over several kernels, but if no single one has so many,
        then neither have they together. A wider convolution ends its search.
        """
        reached = set()
        for number, operator in enumerate(self.operators):
            if number in self.stems:
                reached.update(operator.outputs)
                continue
            if reached.isdisjoint(operator.inputs):
                continue
            if self.names[number] in ("CONV_2D", "FULLY_CONNECTED"):
                kernel = self._shape(operator.inputs[1])
                if max(kernel[1:-1], default=1) > 1:
                    continue
                value = self._constant(operator.inputs[1])
                if value is None or np.mean(value == 0) > LEAST_SPARSITY:
                    return True
            reached.update(operator.outputs)
        return False

    def _is_verified(self, number):
        """Whether the operator is known to be computed right by channels."""
        name = self.names[number]
        operator = self.operators[number]
        if not len(operator.inputs):
            return False
        if self._rank(operator.inputs[0]) <= 2:
            return name in _HEAD
        if name in _ELEMENTWISE:
            return True
        check = {
            "ADD": self._joins_equals,
            "MUL": self._joins_equals,
            "CONV_2D": self._is_convolution,
            "DEPTHWISE_CONV_2D": self._is_depthwise,
            "MEAN": self._is_global_average,
            "PAD": self._pads_one_convolution,
        }.get(name)
        return check is not None and check(operator)

    def _joins_equals(self, operator):
        left, right = operator.inputs
        computed = left in self.producers and right in self.producers
        return computed and self._shape(left) == self._shape(right)

    def _is_convolution(self, operator):
        options = operator.builtinOptions
        kernel = self._shape(operator.inputs[1])
        dilation = (options.dilationHFactor, options.dilationWFactor)
        if dilation != (1, 1) or not self._has_float_kernel(operator):
            return False
        strides = (options.strideH, options.strideW)
        if kernel[1:3] == (1, 1):
            whole = kernel[3] == self._shape(operator.inputs[0])[3]
            return strides == (1, 1) and whole
        # A second convolution of this kind is refused as a second stem.
        return (
            kernel[1:] == (3, 3, 3)
            and strides == (2, 2)
            and options.padding == self.schema.Padding.VALID
            and self._pads_by(self._padding(operator), 1)
        )

    def _is_depthwise(self, operator):
        options = operator.builtinOptions
        height, width, channels = self._shape(operator.inputs[1])[1:]
        strides = (options.strideH, options.strideW)
        if (
            not self._has_float_kernel(operator)
            or height != width
            or height not in (3, 5)
            or channels != self._shape(operator.inputs[0])[3]
            or (options.dilationHFactor, options.dilationWFactor) != (1, 1)
        ):
            return False
        if options.padding == self.schema.Padding.SAME:
            return strides == (1, 1)
        padding = self._padding(operator)
        return strides in ((1, 1), (2, 2)) and self._pads_by(
            padding, height // 2
        )

    def _pads_by(self, number, width):
        if number is None or self.names[number] != "PAD":
            return False
        pads = self._constant(self.operators[number].inputs[1])
        sides = [[0, 0], [width, width], [width, width], [0, 0]]
        return pads is not None and pads.tolist() == sides

    def _pads_one_convolution(self, operator):
        """Whether the convolution that follows can take the padding over."""
        padded = operator.outputs[0]
        readers = [
            name
            for name, other in zip(self.names, self.operators, strict=True)
            if padded in other.inputs
        ]
        return readers in (["CONV_2D"], ["DEPTHWISE_CONV_2D"])

    def _is_global_average(self, operator):
        axes = self._constant(operator.inputs[1])
        return (
            axes is not None
            and sorted(axes.tolist()) == [1, 2]
            and not operator.builtinOptions.keepDims
        )
