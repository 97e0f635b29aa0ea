"""Sets the epoch of the data, from which its order follows."""

import keras


class SetEpoch(keras.callbacks.Callback):
    """Sets the epoch of a data set, which determines its order.

    Without this callback, a data set counts how often it was read, and starts
    with the order of the first epoch when training is resumed.

    Args:
        data: The data set that is passed to `fit`, returned by
            `tf_gems.datasets.ImageData.batches` or
            `tf_gems.datasets.by_epoch`; or any object with a method
            `set_epoch`.

    Raises:
        ValueError: If the data has no method `set_epoch`.

    Example:

    ```python
    batches = tf_gems.datasets.load("digits").batches(64, seed=0)
    model.fit(batches, epochs=100, callbacks=[
        tf_gems.callbacks.SetEpoch(batches),
        tf_gems.callbacks.Backup("backup")])
    ```
    """

    def __init__(self, data):
        super().__init__()
        if not callable(getattr(data, "set_epoch", None)):
            raise ValueError(
                "The order of a data set depends on the epoch only if it has "
                f"a method `set_epoch`. Received: data={data!r}. Pass the "
                "data set that `tf_gems.datasets.by_epoch` returned, before "
                "further transformations."
            )
        self._set_epoch = data.set_epoch

    def on_epoch_begin(self, epoch, logs=None):
        self._set_epoch(epoch)

    def on_train_end(self, logs=None):
        self._set_epoch(None)
