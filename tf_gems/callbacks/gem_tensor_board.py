"""Densities, score histograms and mask flips for TensorBoard."""

import keras
import numpy as np

from tf_gems.callbacks.backup import is_chief
from tf_gems.layers.gem_layer import built_gem_layers
from tf_gems.targets import check_path
from tf_gems.validation import check_integer


class GemTensorBoard(keras.callbacks.Callback):
    """Logs the pruning of every weight for TensorBoard.

    At the end of every epoch, for each prunable weight:

    * `density/<path>`: the fraction of kept entries;
    * `flips/<path>`: the fraction of entries whose mask has changed since the
    previous epoch;
    * `scores/<path>`: histogram of the scores of alive entries, while mining;

    and `density`, `alive_density` and `flips` over all weights. Metrics and
    losses are written by `keras.callbacks.TensorBoard`, which can use the same
    directory. With several workers, the chief writes.

    Args:
        log_dir: Path of the event files.
        histogram_freq: Integer, number of epochs between histograms; `0` for
            none. Defaults to `1`.

    Example:

    ```python
    sparse.fit(data, epochs=150, callbacks=[
        tf_gems.GemMinerCallback(0.98),
        tf_gems.callbacks.GemTensorBoard("logs")])
    ```
    """

    def __init__(self, log_dir, histogram_freq=1):
        super().__init__()
        self.log_dir = str(check_path(log_dir, "log_dir"))
        self.histogram_freq = check_integer(histogram_freq, "histogram_freq")
        self._gems, self._before, self._writer = [], None, None

    def on_train_begin(self, logs=None):
        self._gems = built_gem_layers(self.model, "GemTensorBoard")
        if is_chief(self.model):
            import tensorflow as tf  # whatever the backend

            self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_epoch_begin(self, epoch, logs=None):
        if self._before is None:  # by now a backup is restored
            self._before = self._masks()

    def on_epoch_end(self, epoch, logs=None):
        masks = self._masks()
        scalars, histograms = self._summarize(masks)
        self._before = masks
        if self._writer is None:
            return
        import tensorflow as tf

        with tf.device("CPU"), self._writer.as_default(epoch):
            for name, value in scalars.items():
                tf.summary.scalar(name, value)
            if self.histogram_freq and epoch % self.histogram_freq == 0:
                for name, values in histograms.items():
                    tf.summary.histogram(name, values)
        self._writer.flush()

    def on_train_end(self, logs=None):
        self._before = None
        if self._writer is not None:
            self._writer.close()

    def _masks(self):
        return [mask for gem in self._gems for mask in gem.current_masks()]

    def _summarize(self, masks):
        """Returns scalars and histograms, dicts by name."""
        scalars, histograms, alive, flips = {}, {}, 0, 0
        weights = [w for gem in self._gems for w in gem.prunable]
        phases = [gem.phase for gem in self._gems for _ in gem.prunable]
        for weight, phase, mask, before in zip(
            weights, phases, masks, self._before, strict=True
        ):
            flags = np.asarray(weight.alive)
            alive += np.count_nonzero(flags)
            flips += np.count_nonzero(mask != before)
            scalars[f"density/{weight.path}"] = np.mean(mask)
            scalars[f"flips/{weight.path}"] = np.mean(mask != before)
            if phase == "mining":
                scores = weight.read_score()[flags]
                histograms[f"scores/{weight.path}"] = scores
        size = sum(mask.size for mask in masks)
        kept = sum(np.count_nonzero(mask) for mask in masks)
        scalars["density"] = kept / size
        scalars["alive_density"] = alive / size
        scalars["flips"] = flips / size
        return scalars, histograms
