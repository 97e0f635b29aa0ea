"""The user's network inside a model that is being pruned."""

import contextlib
import inspect
import warnings

import keras
import numpy as np
from keras import ops

from tf_gems import _keras
from tf_gems.initializers import SignedConstant
from tf_gems.layers.gem_layer import find_gem_layers
from tf_gems.layers.gem_layer import masked
from tf_gems.layers.training_guard import forget_compilation
from tf_gems.layers.zeros import is_untouched
from tf_gems.validation import check_model
from tf_gems.wrapper_removal import remove_wrappers


def gems_of(model):
    """Returns every `GemLayer` of a model, or raises if there is none."""
    gems = find_gem_layers(model)
    if gems:
        return gems
    raise ValueError(
        "Only a `tf_gems.SparseModel`, or a model that contains "
        f"`tf_gems.GemLayer`s, can be used here. Received: '{model.name}' of "
        f"type {type(model).__name__}, which is neither. Wrap it first."
    )


def prunable_weights(model):
    """Returns every `PrunableWeight` of a model that is being pruned."""
    return [weight for gem in gems_of(model) for weight in gem.prunable]


def network_weights(model):
    """Returns the weights of the network itself, without scores and flags."""
    added = {
        id(v) for gem in find_gem_layers(model) for v in gem.own_variables()
    }
    return [v for v in model.weights if id(v) not in added]


def strip(model: keras.Model) -> keras.Model:
    """Returns the user's own model, with exact zeros in its kernels.

    The model is not copied. For a `SparseModel` it is the same object that was
    passed to it; in a model with `GemLayer`s the wrapped layers replace their
    wrappers. So everything that is not in a config is kept: adapted
    statistics, look-up tables, attributes, the user's own class.

    Every prunable weight is multiplied by its mask, so the model has the
    outputs of the pruned model in its current phase. Weights have the
    `trainable` setting that they had before wrapping. The model does not
    depend on `tf_gems`, and must be compiled. It is no longer masked: its `fit`
    trains the zeros as well. To keep them, train the `SparseModel`, or wrap the
    model again with `start="trained"`.

    The `SparseModel` still has the same outputs, in the fine-tuning phase.
    Mining cannot continue, because the initial values of pruned weights are
    lost: call `ticket` first. The `SparseModel` wraps the model again when it
    is compiled.

    Args:
        model: `SparseModel`, or Keras model that contains `GemLayer`s.

    Returns:
        The user's own Keras model.

    Raises:
        RuntimeError: If nothing has been pruned yet.
        ValueError: If the model is not wrapped for pruning, or contains a
            `GemLayer` that cannot be replaced.

    Example:

    ```python
    plain = tf_gems.strip(sparse)
    plain.save("plain.keras")
    ```
    """
    gems = gems_of(check_model(model))
    refuse_before_mining(gems, model)
    _warn_of_few_zeros(gems, model)
    plain, _ = remove_wrappers(model)
    for gem in gems:
        gem.prune_for_good()
        gem.give_back()
    _forget_signed_constants(plain)
    _forget_compilations(model, plain)
    return plain


def unwrap(model: keras.Model) -> keras.Model:
    """Returns the user's own model, not pruned.

    Weights keep their current values: in the mining phase the initial values,
    and in the fine-tuning phase the trained values with zeros where they are
    pruned. `tf_gems.strip` returns the pruned model.

    Args:
        model: `SparseModel`, or Keras model that contains `GemLayer`s.

    Returns:
        The user's own Keras model, which must be compiled.

    Raises:
        ValueError: As for `tf_gems.strip`.

    Example:

    ```python
    model = tf_gems.unwrap(sparse)
    model.compile("adam", loss)
    ```
    """
    gems = gems_of(check_model(model))
    plain, _ = remove_wrappers(model)
    for gem in gems:
        gem.zero_pruned()
        gem.give_back()
    _forget_compilations(model, plain)
    return plain


@contextlib.contextmanager
def masked_by_flags(gems):
    """Makes the flags the masks of some `GemLayer`s, within the block."""
    phases = [gem.phase for gem in gems]
    try:
        for gem in gems:
            gem.phase = "finetuning"
        yield
    finally:
        for gem, phase in zip(gems, phases, strict=True):
            gem.phase = phase


@contextlib.contextmanager
def masked_network(model):
    """Yields the user's own model, pruned within the block.

    Within the block it is what `tf_gems.strip` would return, to be traced,
    saved or run. Afterwards every weight is restored, bit for bit, even after
    an exception, and pruning can continue.

    Example:

    ```python
    with masked_network(sparse) as plain:
        plain.export("saved_model")
    ```
    """
    gems = find_gem_layers(model)
    if gems:
        refuse_before_mining(gems, model)
        _warn_of_few_zeros(gems, model)
    with borrowed_network(model) as plain:
        yield plain


@contextlib.contextmanager
def borrowed_network(model):
    """Like `masked_network`, but also before anything is frozen."""
    gems = find_gem_layers(model)
    if not gems:
        yield model
        return
    plain, put_wrappers_back = remove_wrappers(model)
    pruned = [
        (prunable.weight, mask)
        for gem in gems
        for prunable, mask in zip(
            gem.prunable, gem.current_masks(), strict=True
        )
    ]
    taken = [gem for gem in gems if gem.taken]
    with contextlib.ExitStack() as stack:
        stack.callback(put_wrappers_back)
        stack.enter_context(_own_functions(plain))
        for gem in taken:
            stack.callback(gem.take_over)
            gem.give_back()
        for weight, mask in pruned:
            value = masked(weight, mask)
            if ops.all(ops.equal(value, weight)):
                continue  # fine-tuned: its zeros are there, nothing to copy
            stack.callback(weight.assign, ops.copy(weight))
            weight.assign(value)
        yield plain


def _trainers(model):
    return [
        p for p in _keras.flatten_layers(model) if isinstance(p, keras.Model)
    ]


def _forget_compilations(*models):
    for model in models:
        for part in _trainers(model):
            forget_compilation(part)


@contextlib.contextmanager
def _own_functions(model):
    """Discards functions that Keras traces within the block."""
    names = ("train_function", "test_function", "predict_function")
    before = [(p, n, getattr(p, n)) for p in _trainers(model) for n in names]
    try:
        for part, name, _ in before:
            setattr(part, name, None)
        yield
    finally:
        for part, name, function in before:
            setattr(part, name, function)


def _forget_signed_constants(model):
    """Replaces initializers of this package, so files do not need it."""
    for part in _keras.flatten_layers(model):
        for name, value in vars(part).items():
            if isinstance(value, SignedConstant):
                setattr(part, name, keras.initializers.HeNormal())


def refuse_before_mining(gems, model):
    """Raises an error if no weight of the network has been pruned yet."""
    if not int(ops.convert_to_numpy(gems[0].target)) and all(
        gem.phase == "mining" and is_untouched(prunable, mask)
        for gem in gems
        for prunable, mask in zip(gem.prunable, gem.ticket_masks(), strict=True)
    ):
        raise RuntimeError(
            f"There is no ticket before mining: no weight of '{model.name}' "
            "is frozen. Call `fit` with a `tf_gems.GemMinerCallback` first."
        )


def refuse_unfinished_mining(gems, model):
    """Raises an error if more weights are alive than the target allows."""
    kept = sum(
        int(np.count_nonzero(mask))
        for gem in gems
        for mask in gem.ticket_masks()
    )
    target = int(ops.convert_to_numpy(gems[0].target))
    if target and kept > target:
        raise RuntimeError(
            f"A ticket must keep the {target:,} weights of the target. "
            f"Received: '{model.name}', in which {kept:,} are alive. Mining "
            "stopped before its last freeze, or the weights of an earlier "
            "epoch were restored, as "
            "`EarlyStopping(restore_best_weights=True)` does. Mine to the "
            'last epoch without it; until then, `ticket(masks="rounded")` '
            "returns the masks that the network computes with."
        )


def _warn_of_few_zeros(gems, model):
    """Warns if the network has fewer zeros than its pruning was to make."""
    kept = sum(sum(gem.count_kept()) for gem in gems)
    size = sum(gem.size for gem in gems)
    target = int(ops.convert_to_numpy(gems[0].target))
    if target and kept > target:
        warnings.warn(
            "The network is less sparse than the target of its pruning. "
            f"Received: '{model.name}' with a sparsity of "
            f"{1 - kept / size:.4f}, for a target of {1 - target / size:.4f}. "
            "Pruning was stopped early, or weights of an earlier epoch were "
            "loaded, for example from a `ModelCheckpoint`. Train until the "
            "last epoch, or load weights that were saved after the last "
            "pruning.",
            stacklevel=3,
        )


def refuse_lost_weights(gems, model):
    """Raises an error if `strip` took weights from the ticket of mining."""
    lost = sum(gem.lost for gem in gems)
    if lost:
        raise RuntimeError(
            "The ticket must be taken before `strip`, which permanently "
            "prunes the weights whose scores round to zero. Received: "
            f"'{model.name}', in which {lost:,} weights were alive before and "
            'are zero now. `ticket(masks="rounded")` returns the masks of '
            "the stripped network."
        )


def custom_objects(layer):
    """The user's classes and functions, which need not be registered."""
    found = {}
    parts = (
        _keras.flatten_layers(layer) if isinstance(layer, keras.Layer) else []
    )
    for part in parts:
        for value in (part, *vars(part).values()):
            named = value if inspect.isfunction(value) else type(value)
            if not named.__module__.startswith(("keras", "builtins")):
                found[named.__name__] = named
    return found
