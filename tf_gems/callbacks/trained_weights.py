"""The weights that train in a `fit`, for callbacks that prune them."""

from keras import ops

from tf_gems.layers.gem_layer import find_gem_layers


def weights_in_training(model, name):
    """Returns every `PrunableWeight` of a model whose weights train.

    Args:
        model: Keras model that a callback was given.
        name: Name of the callback, for messages.

    Raises:
        ValueError: If there is none, or if scores train instead.
    """
    gems = find_gem_layers(model)
    if not gems:
        raise ValueError(
            f"`{name}` needs weights to prune. Received: model "
            f"'{model.name}' of type {type(model).__name__}, which holds no "
            "`GemLayer`. Wrap it: `tf_gems.SparseModel(model)`."
        )
    if not all(gem.built for gem in gems):
        raise ValueError(
            "A model must be built before it is pruned. Received: model "
            f"'{model.name}', whose weights are made by its first call. Call "
            "it once on data before `fit`."
        )
    if any(gem.phase != "finetuning" for gem in gems):
        raise ValueError(
            f"`{name}` prunes weights while they train. Received: model "
            f"'{model.name}', which is mining: only scores train. Call "
            "`prepare(model)` of the method, and `compile`, before `fit`."
        )
    return [weight for gem in gems for weight in gem.prunable]


def read(weights):
    """Returns the values, float32, and the flags, bool, of some weights."""
    values = [
        ops.convert_to_numpy(ops.cast(w.weight, "float32")) for w in weights
    ]
    return values, [ops.convert_to_numpy(w.alive) > 0 for w in weights]


def log_sparsity(weights, logs):
    """Adds `sparsity` and `density` to the logs of an epoch."""
    if logs is not None:
        _, alive = read(weights)
        kept, size = sum(a.sum() for a in alive), sum(a.size for a in alive)
        logs["sparsity"], logs["density"] = 1.0 - kept / size, kept / size
