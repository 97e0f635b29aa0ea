"""Every use of Keras that its public API does not offer.

All were checked with Keras 3.15.1. Each entry says what breaks without
it. Of the other modules, `wrapper_removal` alone edits private attributes of
Keras: those of `GRAPH_ATTRIBUTES`, in which layers are replaced.
"""

import keras
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.ops.function import make_node_key
from keras.src.ops.node import KerasHistory
from keras.src.utils.tracking import DotNotTrackScope

__all__ = [
    "Functional",
    "KerasHistory",  # `wrapper_removal` could not connect the wrapped layer
    "DotNotTrackScope",  # and Keras would track replaced lists again
    "global_state",  # names of a network that is read would be numbered anew
    "in_stateless_scope",  # masked reads would not know a functional call
    "make_node_key",  # functional graphs could not be edited
]

# The class of functional models, whose graph is known: without it, subclassed
# and functional models could not be told apart.
Functional = keras.src.models.Functional

# Attributes in which Keras keeps the layers of a model.
GRAPH_ATTRIBUTES = {
    "_compiled_trainable_state",
    "_functional",
    "_inbound_nodes",
    "_layers",
    "_nodes",
    "_nodes_by_depth",
    "_operations",
    "_operations_by_depth",
    "_outbound_nodes",
    "_tracker",
}


def flatten_layers(layer, include_self=True, recursive=True):
    """Returns a layer and all that it holds, parents before their parts.

    `Model.layers` lists direct children only: nested kernels would not be
    found, neither to be pruned nor to be reported.
    """
    return layer._flatten_layers(include_self, recursive)


def functional_of(model):
    """Returns the functional model within a `Sequential`; `None` if unbuilt."""
    return model._functional


def run_through_graph(function, inputs, operation_fn):
    """Computes a graph with other operations in the places of its own.

    The public `call` cannot substitute operations: graphs could not be
    followed, compacted or rewritten.
    """
    return function._run_through_graph(inputs, operation_fn)


def clear_losses(layer):
    """Forgets the losses of the last call; otherwise they count twice."""
    layer._clear_losses()


def own_metrics(layer):
    """Returns the metrics of a layer itself, without those of its parts.

    `Layer.metrics` would report metrics of models within that the user has
    compiled earlier.
    """
    return layer._metrics


def own_variables(layer):
    """Returns the variables of a layer itself, trainable ones first.

    `Layer.weights` includes those of its parts: no initializer is found by
    the name of the variable then.
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def own_variable_lists(layer):
    """Returns the lists themselves in which a layer keeps its variables.

    While a user's own step mines, scores take the places of weights in them.
    """
    return [layer._trainable_variables, layer._non_trainable_variables]


def own_trainable(variable):
    """Returns what `Variable.trainable` was set to, whatever the phase says."""
    return variable._trainable


def stored_value(variable):
    """Returns the value of a variable, unmasked, in any scope."""
    return variable._value


def optimizer_variables(optimizer):
    """Returns the model's variables that an optimizer was built with."""
    return optimizer._trainable_variables


def learning_rate_of(optimizer):
    """Returns the learning rate as given: a schedule, function or variable.

    `Optimizer.learning_rate` is its present value, of which no copy follows
    the schedule.
    """
    return optimizer._learning_rate


def config_without_learning_rate(optimizer):
    """Returns the config, also if a schedule has no `get_config`."""
    rate = optimizer._learning_rate
    try:
        vars(optimizer)["_learning_rate"] = None
        return optimizer.get_config()
    finally:
        vars(optimizer)["_learning_rate"] = rate


def is_lower_better(metric):
    """Whether Keras knows of a metric that less of it is better.

    Errors would be ranked, and drawn, as accuracies.
    """
    return getattr(metric, "_direction", None) == "down"


def initial_epoch(model):
    """Returns the epoch with which `fit` begins, as callbacks have set it."""
    return model._initial_epoch


def set_initial_epoch(model, epoch):
    """Lets `fit` begin with an epoch, as `BackupAndRestore` does.

    Without it a resumed run would train all epochs again. Keras never forgets
    it: it is set back to `None`.
    """
    model._initial_epoch = epoch


def inputs_struct(model):
    """Returns the inputs of a functional model in the user's own structure."""
    return model._inputs_struct


def operations_within(operation):
    """Returns the operations and layers that an operation holds."""
    return [
        *getattr(operation, "_operations", ()),
        *getattr(operation, "_layers", ()),
    ]


def calls_of(operation):
    """Returns the nodes of a graph, one for each call of an operation."""
    return getattr(operation, "_inbound_nodes", ())


def build_on_batch(model, batch):
    """Builds a compiled model, its metrics and losses, on symbols of a batch.

    On several workers Keras would build them on values of other workers.
    """
    model._symbolic_build(data_batch=batch)


def standardize_inputs(model, inputs):
    """Returns what a functional model takes as a flat list of tensors.

    Dicts by name and inputs without a batch axis would be misread.
    """
    return model._standardize_inputs(inputs)


def recorded_shapes(model):
    """Returns the shapes of the arguments of the call that built a model.

    Subclassed models could not be exported without `inputs`.
    """
    return getattr(model, "_build_shapes_dict", None) or {}
