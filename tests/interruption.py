"""Data during which a machine fails."""

import os
import signal

import keras


class Interrupted(keras.utils.PyDataset):
    """The same batches; after some of them reading fails.

    Args:
        batches: List of batches.
        reads: Integer, how many batches can be read.
        kill: Whether the whole process is killed then.
    """

    def __init__(self, batches, reads, kill=False):
        super().__init__()
        self.batches = batches
        self.reads_left = reads
        self.kill = kill

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        self.reads_left -= 1
        if self.reads_left < 0 and self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.reads_left < 0:
            raise InterruptedError("The machine is gone.")
        return self.batches[index % len(self.batches)]
