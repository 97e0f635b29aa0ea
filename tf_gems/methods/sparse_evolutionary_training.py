"""SET: sparse training with connections that come back at random."""

import keras
import numpy as np

from tf_gems.methods.dynamic_sparse_training import DynamicSparseTraining


@keras.saving.register_keras_serializable(package="tf_gems")
class SparseEvolutionaryTraining(DynamicSparseTraining):
    """Drops the smallest weights, and grows others at random.

    The weights that grow are drawn from the seed and the number of the update,
    so a resumed run draws the same weights. As in Evci et al., 2020, grown
    weights start from zero and the fraction falls as a cosine. Mocanu et al.
    replace the same fraction after every epoch: use
    `fraction=tf_gems.schedules.Constant(0.3)` and set `update_period` to the
    number of batches.

    Args:
        target_sparsity: Float in [0, 1), the fraction of zeros.
        **kwargs: See `tf_gems.methods.DynamicSparseTraining`.

    Example:

    ```python
    sparse.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss)
    training = tf_gems.methods.SparseEvolutionaryTraining(0.9, epochs=100)
    ticket = training.find(sparse, data)
    ```

    Reference: Mocanu et al., 2018, "Scalable training of artificial neural
    networks with adaptive sparse connectivity inspired by network science".
    """

    def growth(self, data):
        def random_scores(model, values, update):
            random = np.random.default_rng([self.seed, update])
            return [random.random(value.shape, "float32") for value in values]

        return random_scores
