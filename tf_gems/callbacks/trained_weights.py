"""The weights that train in a `fit`, for callbacks that prune them."""

import warnings

import keras
from keras import ops

from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.layers.zeros import is_untouched

# Of what is pruned, more zeros than this beyond the target are no accident.
_TOLERANCE = 0.01


def train_weights(model):
    """Lets the weights of a model that was just wrapped train.

    A model that was mined, or trained, since it was wrapped stays as it is.

    Args:
        model: `SparseModel`, compiled, before `fit`.
    """
    gems = find_gem_layers(model)
    untouched = all(
        gem.built
        and gem.phase == "mining"
        and not int(ops.convert_to_numpy(gem.target))
        and all(is_untouched(w, w.alive.read()) for w in gem.prunable)
        for gem in gems
    )
    if not untouched or getattr(model.optimizer, "built", True):
        return
    for gem in gems:
        gem.set_phase("finetuning")
    # Its optimizer holds no variables yet: nothing has to be compiled again.
    model.compiled = True


def refuse_restoring(callbacks, epoch, name):
    """Raises an error for callbacks that would bring pruned weights back.

    Args:
        callbacks: List of the callbacks of `fit`.
        epoch: Integer, the epoch that begins with the last pruning.
        name: Name of the callback that prunes, for messages.
    """
    for callback in callbacks:
        if (
            isinstance(callback, keras.callbacks.EarlyStopping)
            and callback.restore_best_weights
            and callback.start_from_epoch < epoch
        ):
            raise ValueError(
                "The best weights must be those of an epoch after the last "
                "pruning: earlier ones would bring pruned weights back. "
                "Received: EarlyStopping(restore_best_weights=True, "
                f"start_from_epoch={callback.start_from_epoch}) beside "
                f"`{name}`, which prunes until epoch {epoch}. Use "
                f"start_from_epoch={epoch}."
            )


def warn_at_floor(weights, distribution, seen=()):
    """Warns of weights that only the floor of a distribution keeps alive.

    Args:
        weights: List of `PrunableWeight`.
        distribution: `tf_gems.distributions.Distribution`.
        seen: Paths of weights that a warning named before.

    Returns:
        Set of the paths of all weights that a warning has named.
    """
    least = getattr(distribution, "minimum", 0)
    found = [
        w.path
        for w in weights
        if w.alive.size > least == w.alive.count() and w.path not in seen
    ]
    if found:
        warnings.warn(
            f"{len(found)} of {len(weights)} kernels are down to the {least} "
            "that the distribution keeps alive of each: "
            f"{', '.join(found)}. Lower `target_sparsity`, or give these "
            'layers their share by `distribution`, such as "erk".',
            stacklevel=2,
        )
    return {*seen, *found}


def warn_unfinished(weights, target_sparsity):
    """Warns if training ended with fewer zeros than were asked for."""
    _, alive = read(weights)
    size = sum(a.size for a in alive)
    kept = sum(a.sum() for a in alive)
    if kept > round((1 - target_sparsity) * size):
        warnings.warn(
            "Training ended before pruning did. Received: "
            f"target_sparsity={target_sparsity:g}, of which "
            f"{1 - kept / size:.4f} was reached. Let `fit` run to its last "
            "epoch: an `EarlyStopping` needs a `start_from_epoch` after the "
            "last pruning.",
            stacklevel=2,
        )


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
