"""Backs training up so that a kill at any moment loses one epoch at most."""

import json
import shutil
from pathlib import Path

import keras
from keras import ops


class Backup(keras.callbacks.Callback):
    """Saves the state of training after every epoch, and restores it.

    `keras.callbacks.BackupAndRestore` writes over its only file, and a run
    that is killed meanwhile cannot be resumed. Here weights and optimizer go
    to a file of their own for each epoch; a small file that names the last
    complete one is then renamed into place.

    Args:
        directory: Path of the backups, made when there is something to save.

    Example:

    ```python
    sparse.fit(data, epochs=150, callbacks=[
        tf_gems.GemMinerCallback(0.98), tf_gems.callbacks.Backup("backup")])
    ```
    """

    def __init__(self, directory):
        super().__init__()
        self.directory = Path(directory)
        self._state = self.directory / "state.json"

    def on_train_begin(self, logs=None):
        if not self._state.exists():
            return
        state = json.loads(self._state.read_text("utf-8"))
        self.model.optimizer.build(self.model.trainable_variables)
        self.model.load_weights(self.directory / state["weights"])
        for variable, value in zip(
            random_states(self.model), state["random"], strict=True
        ):
            variable.assign(value)
        # As `BackupAndRestore` does: `fit` begins with this epoch.
        self.model._initial_epoch = state["epoch"]

    def on_epoch_begin(self, epoch, logs=None):
        # Keras never forgets it: the next `fit` would begin there as well.
        self.model._initial_epoch = None

    def on_train_end(self, logs=None):
        self.model._initial_epoch = None

    def remove(self):
        """Removes the backups, such that a kill meanwhile does no harm."""
        self._state.unlink(missing_ok=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    def on_epoch_end(self, epoch, logs=None):
        self.directory.mkdir(parents=True, exist_ok=True)
        weights = self.directory / f"{epoch + 1}.weights.h5"
        self.model.save_weights(weights, overwrite=True)
        partial = self._state.with_suffix(".partial")
        state = {
            "epoch": epoch + 1,
            "weights": weights.name,
            "random": [
                ops.convert_to_numpy(variable).tolist()
                for variable in random_states(self.model)
            ],
        }
        partial.write_text(json.dumps(state), "utf-8")
        partial.replace(self._state)
        for older in self.directory.glob("*.weights.h5"):
            if older != weights:
                older.unlink()


def random_states(model):
    """Returns the states of dropout and its like, which Keras does not save.

    Each holds a seed, and how often it has been drawn from.
    """
    return [v for v in model.variables if v.name == "seed_generator_state"]
