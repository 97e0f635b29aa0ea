"""Statistics of batch normalization, estimated again after pruning."""

import contextlib
import inspect
import itertools

import keras
import numpy as np
from keras import ops

from tf_gems import _keras
from tf_gems import training_data
from tf_gems.compaction.comparing import outputs_of
from tf_gems.validation import check_eager
from tf_gems.validation import check_model
from tf_gems.validation import check_positive_integer


def recalibrate_batch_norm(
    model: keras.Model, x, y=None, batches: int = 100, **arguments
):
    """Re-estimates the moving statistics of batch normalization.

    Moving means and variances describe the activations of the weights that
    they were collected with. After one-shot pruning they no longer fit, which
    alone reduces the accuracy. This function sets the statistics of every
    layer to the average over all batches, computed as in training, with active
    dropout. For a layer that is called several times, it is the average over
    all calls. Weights and all other state are unchanged, and so are layers
    that do not train.

    Pruning in `fit` needs no such step: training updates the statistics.

    Args:
        model: Keras model, a `tf_gems.SparseModel` too.
        x: Data as for `fit`, see `tf_gems.training_data.read`. Only the inputs
            are used. Use the batch size of training.
        y: As for `fit`. Defaults to `None`.
        batches: Positive integer, the maximum number of batches. Defaults to
            `100`.
        **arguments: Arguments of `fit` for its data, such as `batch_size`.

    Returns:
        Integer, the number of normalization layers.

    Raises:
        ValueError: If the data has no batch, or the statistics are not finite.
            The model is unchanged.

    Example:

    ```python
    tf_gems.methods.Magnitude(0.8).find(sparse).apply(sparse)
    tf_gems.recalibrate_batch_norm(sparse, x, y, batch_size=128)
    ```

    Reference: Li et al., 2020, "EagleEye: Fast Sub-net Evaluation for
    Efficient Neural Network Pruning", section 3.3.
    """
    check_eager()
    check_model(model)
    check_positive_integer(batches, "batches")
    data = training_data.read(x, y, model, **arguments)
    if data is None:
        raise ValueError(
            "Statistics are estimated from data. Received: x=None. Pass the "
            "data as for `fit`."
        )
    norms = [
        part
        for part in _keras.flatten_layers(model)
        if isinstance(part, keras.layers.BatchNormalization)
    ]
    if not norms:
        return 0
    statistics = {
        id(v)
        for norm in norms
        for v in (norm.moving_mean, norm.moving_variance)
    }
    # Seeds of dropout, and whatever else a call moves.
    before = [(v, ops.copy(v)) for v in model.variables]
    kept = {id(v) for v in model.variables} - statistics
    try:
        with contextlib.ExitStack() as stack:
            for norm in norms:
                stack.enter_context(_averaging(norm))
            _estimate(model, itertools.islice(data, batches))
        _refuse_not_finite(norms)
    except Exception:
        kept |= statistics
        raise
    finally:
        for variable, value in before:
            if id(variable) in kept:
                variable.assign(value)
        _keras.clear_losses(model)
    return len(norms)


def _estimate(model, batches):
    batch = None
    for batch in batches:
        outputs_of(model, batch[0], "x", training=True)
    if batch is None:
        raise ValueError(
            "Statistics are estimated from data. Received: data without a "
            "batch. Pass a batch `(x, y)`, or an iterable that can be read "
            "repeatedly."
        )


@contextlib.contextmanager
def _averaging(norm):
    """Makes moving statistics the averages over calls within the block."""
    call, momentum = norm.call, norm.momentum
    signature = inspect.signature(call)
    count = 0

    def averaging(*args, **kwargs):
        nonlocal count
        if signature.bind(*args, **kwargs).arguments.get("training"):
            count += 1
            # With momenta 0, 1/2, 2/3, ... all calls weigh the same.
            norm.momentum = (count - 1) / count
        return call(*args, **kwargs)

    vars(norm)["call"] = averaging
    try:
        yield
    finally:
        del vars(norm)["call"]
        norm.momentum = momentum


def _refuse_not_finite(norms):
    for norm in norms:
        for variable in (norm.moving_mean, norm.moving_variance):
            if not np.all(np.isfinite(ops.convert_to_numpy(variable))):
                raise ValueError(
                    "Normalization statistics must be finite. Received: `x` "
                    f"for which those of '{norm.name}' are NaN or infinite. "
                    "Check the data and the weights."
                )
