"""The base class of pruning methods."""

import keras
import numpy as np

from tf_gems import registry
from tf_gems import training_data
from tf_gems.filter_policies import refuse_too_few_zeros
from tf_gems.layers.zeros import nonzero
from tf_gems.layers.zeros import refuse_below_zeros
from tf_gems.network import gems_of
from tf_gems.network import prunable_weights
from tf_gems.selection import distributions
from tf_gems.selection import patterns
from tf_gems.ticket import Ticket
from tf_gems.validation import check_eager
from tf_gems.validation import check_sparsity


class Method(registry.Configurable):
    """Base class of methods that find a ticket by scores of the weights.

    A method overrides `scores`. The base class keeps the weights with the
    largest scores, as many as the distribution allows, breaks ties by
    position, and returns a ticket with the current weights of the model. The
    model is not changed.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        distribution: How the kept weights are distributed over the layers, see
            `tf_gems.distributions.get`. Defaults to `"global"`.
        pattern: Which weights are kept together, see `tf_gems.patterns.get`.
            Defaults to `"unstructured"`.

    Raises:
        ValueError: If an argument is out of range, or the pattern is not
            possible at this sparsity.
    """

    def __init__(
        self, target_sparsity, distribution="global", pattern="unstructured"
    ):
        self.target_sparsity = check_sparsity(target_sparsity)
        self.distribution = distributions.get(distribution)
        self.pattern = patterns.get(pattern)
        patterns.refuse_too_dense(self.pattern, self.target_sparsity)

    # What kernels are best drawn from before `find`; `None`: the layer's own.
    kernel_initializer = None

    @property
    def epochs_of_search(self):
        """The number of training epochs of `find`."""
        return 0

    def scores(self, model, data):
        """Returns the scores; the weights with the largest scores are kept.

        Args:
            model: `SparseModel`, or Keras model that contains `GemLayer`s.
            data: `tf_gems.training_data.TrainingData`, whose iteration
                yields batches as tuples; or `None`.

        Returns:
            List of float arrays, one for each prunable weight.
        """
        raise NotImplementedError

    def find(
        self,
        model,
        x=None,
        y=None,
        directory=None,
        verbose="auto",
        callbacks=(),
        **arguments,
    ):
        """Returns the ticket that this method finds in a model.

        Weights that are already zero are never kept, see
        `tf_gems.layers.zeros.nonzero`.

        Args:
            model: `SparseModel`, or Keras model that contains `GemLayer`s.
            x: Data as for `fit`: arrays, or a `tf.data.Dataset`, a
                `keras.utils.PyDataset` or a generator of batches; a list of
                batches; or one batch as a tuple `(x, y)`. See
                `tf_gems.training_data.read`. Defaults to `None`, for methods
                without data.
            y: Targets, if `x` is arrays. Defaults to `None`.
            directory: Directory for the backups of methods that train. After
                an interruption, the same call resumes from them. Defaults to
                `None`.
            verbose: As for `fit`, for methods that train. Defaults to
                `"auto"`, which shows every epoch; `0` is silent.
            callbacks: Keras callbacks for `fit`, for methods that train.
                Defaults to none.
            **arguments: Arguments of `fit` for its data: `batch_size`,
                `sample_weight`, `class_weight`, `steps_per_epoch`, `shuffle`
                and, for methods that train, `validation_data`,
                `validation_split`, `validation_batch_size`,
                `validation_steps` and `validation_freq`.

        Returns:
            `tf_gems.Ticket` with exactly the target sparsity. Its metadata
            contains the config of the method.

        Raises:
            ValueError: If the pattern and the distribution are incompatible,
                the model prunes for speed and the sparsity is too low, more
                weights are already zero, or an argument does not apply to the
                data.

        Example:

        ```python
        ticket = tf_gems.methods.Snip(0.98).find(sparse, x, y, batch_size=128)
        ```
        """
        check_eager()
        data = training_data.read(x, y, model, **arguments)
        return self.find_ticket(model, data, directory, verbose, callbacks)

    def find_ticket(self, model, data, directory, verbose, callbacks):
        """Returns the ticket of `find`, whose data has been read."""
        refuse_too_few_zeros(gems_of(model), self.target_sparsity)
        among = self._nonzero(model)
        density = 1.0 - self.target_sparsity
        scores = self.scores(model, data)
        masks = self.keep(model, scores, density, among)
        warn_at_minimum(self.distribution, model, masks)
        return self.ticket(model, masks)

    def _nonzero(self, model):
        """Returns which weights are not zero; `None` if all count."""
        weights = prunable_weights(model)
        masks = [nonzero(w.weight) for w in weights]
        kept = sum(int(np.count_nonzero(mask)) for mask in masks)
        refuse_below_zeros(
            kept, sum(m.size for m in masks), self.target_sparsity
        )
        return None if all(mask.all() for mask in masks) else masks

    def keep(self, model, scores, density, among=None):
        """Returns masks that keep the largest scores."""
        paths = [w.path for w in prunable_weights(model)]
        if among is not None:
            alive = sum(int(np.count_nonzero(mask)) for mask in among)
            density = min(density, alive / sum(np.size(m) for m in among))
        return self.distribution.keep(
            scores, density, paths, self.pattern, among
        )

    def check_ranking(self, scores):
        """Returns scores if they are finite and not all equal.

        Ties are broken by position: a ticket of equal scores would keep the
        first weights of the network.
        """
        name = type(self).__name__
        low = min(np.min(s, initial=np.inf) for s in scores)
        high = max(np.max(s, initial=-np.inf) for s in scores)
        if not all(np.isfinite(s).all() for s in scores):
            raise ValueError(
                f"{name} ranks weights by finite scores. Received: scores "
                "with NaN or infinite values. Check the weights, the data "
                "and the loss."
            )
        if low == high and sum(np.size(s) for s in scores) > 1:
            raise ValueError(
                f"{name} requires scores that differ. Received: a score of "
                f"{low:g} for every weight. The gradient of the loss vanishes "
                "if all examples are zero or equal, if the loss is constant, "
                "or if the outputs of the network do not depend on its "
                "inputs. All magnitudes are equal after `SignedConstant`. "
                "Check the data, or initialize the weights again."
            )
        return scores

    def ticket(self, model, masks):
        """Returns a ticket of masks and the current weights of a model."""
        for weight, mask in zip(prunable_weights(model), masks, strict=True):
            if not self.pattern.matches(mask):
                raise ValueError(
                    "The distribution must be compatible with the pattern. "
                    f"Received: {type(self.pattern).__name__} "
                    f"{self.pattern.get_config()} for '{weight.path}', of "
                    f"which the distribution keeps {np.mean(mask):.1%}. "
                    "Choose another distribution, or a higher sparsity."
                )
        return Ticket.from_masks(model, masks, {"method": self._description()})

    def _description(self):
        """Returns the config, or the name alone if a part has none."""
        try:
            return keras.saving.serialize_keras_object(self)
        except NotImplementedError:  # not worth the loss of a search
            return {"class_name": type(self).__name__}


def present_weights(model):
    """Returns the values of all prunable weights, as float32 arrays."""
    return [w.read_weight() for w in prunable_weights(model)]


def warn_at_minimum(distribution, model, masks):
    """Warns of layers that are down to the minimum of a distribution."""
    kept = {
        weight.path: (np.count_nonzero(mask), mask.size)
        for weight, mask in zip(prunable_weights(model), masks, strict=True)
    }
    distributions.warn_at_minimum(distribution, kept)
