"""The calls that a functional model makes, and which of them read which."""

import collections

from tf_gems.compaction.graph import tensors_of
from tf_gems.compaction.graph import trace


class CallGraph:
    """The calls of a model, and which of them read which.

    Only calls of this model count. Keras' own record of a layer also has the
    calls of other models that share it.

    Args:
        model: Built functional or Sequential Keras model.

    Attributes:
        inputs: List of symbolic tensors.
        calls: List of `tf_gems.compaction.graph.Call`, those of nested models
            included.
    """

    def __init__(self, model):
        self.inputs, self.calls, outputs = trace(model)
        self._outputs = {id(tensor) for tensor in tensors_of(outputs)}
        self._makers, self._readers = {}, collections.defaultdict(list)
        self._by_layer = collections.defaultdict(list)
        for call in self.calls:
            self._by_layer[id(call.operation)].append(call)
            for tensor in tensors_of((call.args, call.kwargs)):
                self._readers[id(tensor)].append(call)
            for tensor in tensors_of(call.outputs):
                self._makers.setdefault(id(tensor), call)

    def layers(self):
        """Returns a list of `(operation, its calls)`, in order."""
        return [
            (calls[0].operation, calls) for calls in self._by_layer.values()
        ]

    def readers(self, *tensors):
        """Returns the list of calls that read any of some tensors."""
        return [call for x in tensors for call in self._readers[id(x)]]

    def maker(self, tensor):
        """Returns the call that makes a tensor; `None` for an input."""
        return self._makers.get(id(tensor))

    def is_output(self, *tensors):
        """Whether a tensor among some is an output of the model."""
        return any(id(tensor) in self._outputs for tensor in tensors)

    def is_called_once(self, call):
        """Whether the model calls an operation in one place alone."""
        return len(self._by_layer[id(call.operation)]) == 1
