"""Statistics of batch normalization, estimated again after pruning."""

import itertools

import keras
from keras import ops

from tf_gems import _keras
from tf_gems import training_data
from tf_gems.validation import check_model
from tf_gems.validation import check_positive_integer


def recalibrate_batch_norm(
    model: keras.Model, x, y=None, batches: int = 100, **arguments
):
    """Estimates the moving statistics of batch normalization anew.

    Moving means and variances describe the activations of the weights that
    they were collected with. After weights are pruned in one shot they no
    longer fit, and the accuracy drops for this reason alone. Every
    layer gets the plain average of the statistics of all batches, which the
    model computes as in training; dropout is active. Weights and all other
    state stay as they are, and so do layers that do not train.

    Pruning in `fit` needs no such step: training updates the statistics.

    Args:
        model: Keras model, a `tf_gems.SparseModel` too.
        x: What `fit` takes, see `tf_gems.training_data.read`. Only inputs are
            used. Batches of the size of training serve best.
        y: As for `fit`. Defaults to `None`.
        batches: Positive integer, the most batches to read. Defaults to
            `100`.
        **arguments: Arguments of `fit` for its data, such as `batch_size`.

    Returns:
        Integer, the number of normalization layers.

    Raises:
        ValueError: If the data has no batch.

    Example:

    ```python
    tf_gems.methods.Magnitude(0.8).find(sparse).apply(sparse)
    tf_gems.recalibrate_batch_norm(sparse, x, y, batch_size=128)
    ```

    Reference: Li et al., 2020, "EagleEye: Fast Sub-net Evaluation for
    Efficient Neural Network Pruning", section 3.3.
    """
    check_model(model)
    check_positive_integer(batches, "batches")
    data = training_data.read(x, y, model, **arguments)
    if data is None:
        raise ValueError(
            "Statistics are estimated from data. Received: x=None. Pass what "
            "`fit` takes."
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
    others = [v for v in model.variables if id(v) not in statistics]
    values = [ops.copy(v) for v in others]
    momenta = [norm.momentum for norm in norms]
    count = 0
    try:
        for count, batch in enumerate(itertools.islice(data, batches), 1):
            for norm in norms:
                # With momenta 0, 1/2, 2/3, ... all batches weigh the same.
                norm.momentum = (count - 1) / count
            _call(model, batch[0])
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for variable, value in zip(others, values, strict=True):
            variable.assign(value)
        _keras.clear_losses(model)
    if not count:
        raise ValueError(
            "Statistics are estimated from data. Received: data without a "
            "batch. Pass a batch `(x, y)`, or an iterable that can be read "
            "again."
        )
    return len(norms)


def _call(model, inputs):
    try:
        model(inputs, training=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            "`x` holds inputs as the model takes them. Received: a batch of "
            f"type {type(inputs).__name__}, which '{model.name}' does not "
            f"take: {reason} Pass what `fit` takes."
        ) from error
