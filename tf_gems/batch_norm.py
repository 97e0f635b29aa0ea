"""Statistics of batch normalization, estimated again after pruning."""

import itertools

import keras
from keras import ops

from tf_gems import training_data


def recalibrate_batch_norm(
    model: keras.Model, x, y=None, batches: int = 100, **arguments
):
    """Estimates the moving statistics of batch normalization anew.

    Moving means and variances describe the activations of the weights that
    they were collected with. After weights are pruned in one shot they no
    longer fit, and accuracy is lost that no weight is to blame for. Every
    layer gets the plain average of the statistics of all batches, which the
    model computes as in training; dropout is active. Weights and all other
    state stay as they are, and so do layers that do not train.

    Pruning in `fit` needs no such step: there the statistics follow.

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
    norms = [
        part
        for part in model._flatten_layers()
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
    data = training_data.read(x, y, model, **arguments)
    count = 0
    try:
        for count, batch in enumerate(itertools.islice(data, batches), 1):
            for norm in norms:
                # With momenta 0, 1/2, 2/3, ... all batches weigh the same.
                norm.momentum = (count - 1) / count
            model(batch[0], training=True)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for variable, value in zip(others, values, strict=True):
            variable.assign(value)
        model._clear_losses()
    if not count:
        raise ValueError(
            "Statistics are estimated from data. Received: data without a "
            "batch. Pass a batch `(x, y)`, or an iterable that can be read "
            "again."
        )
    return len(norms)
