"""Data that simulates an interruption."""

import os
import signal

import keras


class Interrupted(keras.utils.PyDataset):
    """Yields the given batches, and fails after some of them.

    Args:
        batches: List of batches.
        reads: Integer, number of batches that can be read.
        kill: Boolean, whether to kill the process instead of raising an error.
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
            raise InterruptedError("Simulated interruption.")
        return self.batches[index % len(self.batches)]
