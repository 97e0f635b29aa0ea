"""The base class of methods that score weights by the loss."""

import contextlib
import itertools

import keras
import numpy as np

from tf_gems import _keras
from tf_gems import training_data
from tf_gems.methods.method import Method
from tf_gems.network import gems_of
from tf_gems.network import masked_by_flags
from tf_gems.network import prunable_weights
from tf_gems.validation import check_count_or_none


class Saliency(Method):
    """Base class of methods that differentiate the compiled loss.

    The current weights of the model are scored. The loss is that of `compile`,
    as computed by `fit`, with batch statistics in normalization, but without
    weight regularizers and without masks. The state of the model does not
    change.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        batches: Positive integer, the number of batches that derivatives are
            averaged over; `None` for all. Defaults to `1`.
        **kwargs: `distribution` and `pattern`, see `tf_gems.methods.Method`.
    """

    def __init__(self, target_sparsity, batches=1, **kwargs):
        super().__init__(target_sparsity, **kwargs)
        self.batches = check_count_or_none(batches, "batches")

    def loss_of(self, model, others=()):
        """Returns the loss as a function of the weights and of a batch."""
        if not model.compiled:
            raise ValueError(
                f"{type(self).__name__} differentiates the loss that the "
                f"model is compiled with. Received: '{model.name}', which is "
                "not compiled. Call `compile` with a loss first."
            )

        def loss(values, *batch):
            x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(batch)
            end = len(values) - len(others)
            further = zip(others, values[end:], strict=True)
            with weights_replaced(model, values[:end], further):
                outputs = self.outputs(model(x, training=True))
                return model.compute_loss(
                    x, y, outputs, sample_weight, training=True
                )

        return loss

    def outputs(self, outputs):
        """Returns the outputs that the loss is computed from."""
        return outputs

    def take(self, data):
        """Returns the batches asked for, as tuples of arrays."""
        return take_batches(data, self.batches)


def take_batches(data, count):
    """Returns `count` batches of data, as tuples of arrays; `None` for all."""
    data = training_data.read(data)
    if data is None:
        raise ValueError(
            "This method requires data. Received: data=None. Pass the data "
            "as for `fit`: arrays `x` and `y`, or a data set of batches `(x, "
            "y)`."
        )
    if count is None and data.is_endless:
        raise ValueError(
            "`batches=None` requires finite data. Received: batches=None, "
            f"for data of type {type(data.source).__name__}, which never "
            "ends. Pass `steps_per_epoch`, or a number of `batches`."
        )
    found = list(itertools.islice(data, count))
    if len(found) < (count or 1):
        raise ValueError(
            "`data` must have at least `batches` batches. Received: "
            f"{len(found)} batches, for batches={count}. Reduce `batches`."
        )
    return [keras.tree.map_structure(_to_array, batch) for batch in found]


def mean_over(batches, function):
    """Averages lists of arrays over batches, each example counting once."""
    total = None
    sizes = [int(keras.tree.flatten(b)[0].shape[0]) for b in batches]
    for batch, size in zip(batches, sizes, strict=True):
        parts = [size * np.asarray(mean) for mean in function(*batch)]
        if total is None:
            total = parts
        else:
            total = [a + b for a, b in zip(total, parts, strict=True)]
    return [part / sum(sizes) for part in total]


def _to_array(value):
    composite = type(value).__name__ in ("RaggedTensor", "SparseTensor")
    if value is None or composite:
        return value
    if hasattr(value, "detach"):  # of torch, perhaps on an accelerator
        value = value.detach().cpu()
    return np.asarray(value)


@contextlib.contextmanager
def weights_replaced(model, values, others=()):
    """Replaces the weights within a block, with all masks one."""
    gems = gems_of(model)
    weights = prunable_weights(model)
    flags = [weight.alive for weight in weights]
    mapping = [
        *zip((w.weight for w in weights), values, strict=True),
        *((f.packed, f.all_true()) for f in flags),
        *others,
    ]
    with masked_by_flags(gems):
        # In this phase a variable tells what the user has set.
        before = [(v, v.trainable) for gem in gems for v in gem.layer.weights]
        try:
            for variable, _ in before:
                # Penalties on weights that do not train are no part of the
                # loss: no mask changes them.
                variable.trainable = False
            with keras.StatelessScope(mapping, collect_losses=True):
                yield
        finally:
            for variable, trainable in before:
                variable.trainable = trainable
            _keras.clear_losses(model)
