"""Tickets with other masks, or other weights."""

import random

import keras
import numpy as np
from keras import ops

from tf_gems import _keras
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.network import custom_objects
from tf_gems.network import network_weights
from tf_gems.network import prunable_weights
from tf_gems.selection import patterns
from tf_gems.ticket import Ticket
from tf_gems.validation import check_integer
from tf_gems.validation import check_model


def shuffle(ticket, model=None, *, seed):
    """Returns a ticket whose masks are shuffled within each layer.

    Each mask is drawn at random from all masks with the same number of ones.
    If the ticket has a pattern (N:M, blocks), it is drawn from all masks with
    this pattern. (If the last blocks of an axis are smaller, it can keep less
    by a part of a block.) The initial weights are unchanged.

    Args:
        ticket: `tf_gems.Ticket`.
        model: `SparseModel` or Keras model with the weights that the ticket
            was found in. It is only required for a ticket that was loaded,
            because a file contains only the kept weights. Defaults to `None`.
        seed: Integer.

    Returns:
        `tf_gems.Ticket`.

    Raises:
        ValueError: If the model has another network, or the weights that the
            ticket prunes are missing.
    """
    seed = _check(ticket, seed, model)
    weights = _with_pruned_weights(ticket, model)
    return _shuffled(ticket, weights, "shuffled", seed)


def reinitialize(ticket, model, *, seed):
    """Returns a ticket with the same masks and reinitialized weights.

    Every weight is initialized as before with another seed: by the
    `kernel_initializer` of a `SparseModel`, if it has one, and otherwise by a
    copy of its layer. Biases and normalization are reset to their initial
    values. Layers that do not train, or were adapted to data, keep their
    values.

    Args:
        ticket: `tf_gems.Ticket`.
        model: `SparseModel` or Keras model with the network of the ticket. It
            is not changed.
        seed: Integer.

    Returns:
        `tf_gems.Ticket`.

    Raises:
        ValueError: If the model is of another network, or a layer cannot be
            copied through its config.
    """
    seed = _check(ticket, seed, check_model(model))
    weights = _drawn_anew(ticket, model, seed)
    return Ticket(
        dict(ticket.masks),
        weights,
        _metadata(ticket, "reinitialized", seed),
        ticket.config,
    )


def randomize(ticket, model, *, seed):
    """Returns a random ticket with the same layer densities.

    Applies both `shuffle` and `reinitialize`. Only the number of kept weights
    of each layer stays the same.

    Args:
        ticket: `tf_gems.Ticket`.
        model: See `reinitialize`.
        seed: Integer.

    Returns:
        `tf_gems.Ticket`.
    """
    seed = _check(ticket, seed, check_model(model))
    return _shuffled(ticket, _drawn_anew(ticket, model, seed), "random", seed)


def _check(ticket, seed, model):
    """Returns the seed, or raises an error if they do not fit together."""
    if not isinstance(ticket, Ticket):
        raise ValueError(
            "`ticket` must be a `tf_gems.Ticket`. Received: "
            f"ticket={ticket!r:.300}. See `SparseModel.ticket`."
        )
    if model is not None:
        ticket.refuse_other_network(check_model(model))
    return check_integer(seed, "seed")


def _shuffled(ticket, weights, variant, seed):
    generator = np.random.default_rng(seed)
    pattern = _pattern_of(ticket)
    masks = {}
    for path, mask in ticket.masks.items():
        scores = generator.random(mask.shape, dtype="float32")
        kept = int(np.count_nonzero(mask))
        [masks[path]] = pattern.keep_largest([scores], kept)
    return Ticket(
        masks, dict(weights), _metadata(ticket, variant, seed), ticket.config
    )


def _pattern_of(ticket):
    config = ticket.metadata.get("method", {}).get("config", {})
    return patterns.get(config.get("pattern", "unstructured"))


def _metadata(ticket, variant, seed):
    return {**ticket.metadata, "variant": variant, "variant_seed": int(seed)}


def _with_pruned_weights(ticket, model):
    """Returns all starting weights, also those that a file leaves out."""
    weights = dict(ticket.weights)
    if _has_pruned_weights(ticket, weights):
        return weights
    if model is not None:
        for path, variable in zip(
            ticket.weights, network_weights(model), strict=True
        ):
            if path in ticket.masks:
                values = ops.convert_to_numpy(variable)
                mask = ticket.masks[path]
                weights[path] = np.where(mask, weights[path], values)
    if not _has_pruned_weights(ticket, weights):
        raise ValueError(
            "A shuffled ticket starts from weights that the ticket prunes. "
            "Received: a ticket in which all of these are zero, as in a "
            "ticket that was loaded from a file, and "
            f"model={getattr(model, 'name', None)!r}. Pass the model with the "
            "weights that the ticket was found in, or use `randomize`, which "
            "reinitializes the weights."
        )
    return weights


def _has_pruned_weights(ticket, weights):
    return not ticket.sparsity or any(
        np.any(weights[path][~mask]) for path, mask in ticket.masks.items()
    )


def _drawn_anew(ticket, model, seed):
    """Returns new starting weights, a dict by the paths of the ticket."""
    weights = network_weights(model)
    drawn = _drawn_kernels(model, int(seed))
    holders = {}
    # Parents come before their parts.
    for layer in _keras.flatten_layers(model):
        holders |= {id(v): layer for v in layer.weights}
    copies = {}
    found = {}
    for path, variable in zip(ticket.weights, weights, strict=True):
        layer = holders[id(variable)]
        old = ticket.weights[path]
        if id(variable) in drawn:
            value = drawn[id(variable)]
        elif not layer.trainable or hasattr(layer, "adapt"):
            value = old
        else:
            if id(layer) not in copies:
                place = 3 * len(weights) + len(copies)  # as no kernel's seed
                copies[id(layer)] = _fresh_copy(layer, [int(seed), place])
            value = _same_weight(copies[id(layer)], layer, variable)
        value = np.array(ops.convert_to_numpy(value))
        if layer.trainable and path in ticket.masks:
            _refuse_same(path, layer, old, value, ticket.masks[path])
        found[path] = value
    return found


def _drawn_kernels(model, seed):
    """Kernels of a `SparseModel` that initializes them, by their ids."""
    if not find_gem_layers(model):
        return {}
    if getattr(model, "kernel_initializer", None) is None:
        return {}
    kernels = [w.weight for w in prunable_weights(model)]
    values = model.draw_kernels(seed, draw=1)
    return {id(v): x for v, x in zip(kernels, values, strict=True)}


def _fresh_copy(layer, entropy):
    """Returns an untrained copy of a layer, drawn from other seeds.

    Layers do with their initializers what they like: an `EinsumDense` tells
    them the fan-in, an LSTM sets one part of its bias to one. So a layer is
    built anew, and not its weights drawn one by one.
    """
    seeds = np.random.default_rng(entropy)
    state = random.getstate()
    # Initializers without a seed take theirs from Python's generator.
    random.seed(int(seeds.integers(2**31)))
    try:
        return keras.saving.deserialize_keras_object(
            _reseeded(keras.saving.serialize_keras_object(layer), seeds),
            custom_objects=custom_objects(layer),
            safe_mode=False,
        )
    except Exception as error:
        raise ValueError(
            "Weights are reinitialized by a copy of their layer. Received: "
            f"'{layer.path}' of type {type(layer).__name__}, for which this "
            f"fails: {error} Implement `get_config`."
        ) from error
    finally:
        random.setstate(state)


def _reseeded(config, seeds):
    """Returns a config with other seeds in all the objects that it holds."""
    if isinstance(config, list | tuple):
        return type(config)(_reseeded(value, seeds) for value in config)
    if not isinstance(config, dict):
        return config
    return {
        key: int(seeds.integers(1, 2**31))
        if key == "seed"
        else _reseeded(value, seeds)
        for key, value in config.items()
        if key != "compile_config"
    }


def _same_weight(copy, layer, variable):
    [place] = [i for i, v in enumerate(layer.weights) if v is variable]
    if len(copy.weights) != len(layer.weights):
        raise ValueError(
            "A copy of a layer must build itself from its config and the "
            f"shapes of its inputs. Received: '{layer.path}' of type "
            f"{type(layer).__name__} with {len(layer.weights)} weights, of "
            f"which a copy has {len(copy.weights)}. Create the weights in "
            "`build`."
        )
    return copy.weights[place]


def _refuse_same(path, layer, old, new, mask):
    """Raises an error if a weight was drawn with the seed of its first draw."""
    if len(np.unique(new)) > 2 and np.array_equal(old[mask], new[mask]):
        if mask.any():
            raise ValueError(
                "A weight must be reinitialized with another seed. Received: "
                f"'{path}' of a {type(layer).__name__}, which uses a fixed "
                "seed that is not in its config. Add the seed to the config."
            )
