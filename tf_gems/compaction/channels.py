"""Which channels of a graph are constant, and which must stay."""

import numpy as np


class Channels:
    """The channels (last axis) of every tensor of a graph.

    A channel is *constant* if it has the same value at every place and for
    every input. A channel is *required* if an operation reads it and cannot
    take it as a constant. Two channels are *tied* if they can only be removed
    together, such as those that are added up.

    The channels that stay are the smallest set that contains all required
    ones and is closed under ties.
    """

    def __init__(self):
        self._start = {}  # by tensor: number of its first channel
        self._constants = {}
        self._parents = np.zeros(0, "int64")
        self._keep = None
        self._tensors = []  # holds references: ids are keys

    def add(self, tensor, constants=None):
        """Adds a tensor.

        Args:
            tensor: Symbolic tensor.
            constants: Float64 array of the shape `(channels,)`: the value of
                each constant channel, NaN for the others. Defaults to `None`:
                no channel is constant.
        """
        count = width(tensor)
        if constants is None:
            constants = np.full(count, np.nan)
        begin = len(self._parents)
        self._start[id(tensor)] = begin
        self._constants[id(tensor)] = np.asarray(constants, "float64")
        self._tensors.append(tensor)
        self._parents = np.append(
            self._parents, np.arange(begin, begin + count)
        )

    def constants(self, tensor):
        """Returns the constants of a tensor, NaN where it has none."""
        return self._constants[id(tensor)]

    def tie(self, first, second, first_places=None, second_places=None):
        """Ties channels of two tensors, pair by pair; `None` stands for all."""
        ones = self._numbers(first, first_places)
        others = self._numbers(second, second_places)
        for one, other in zip(ones, others, strict=True):
            self._parents[self._root(other)] = self._root(one)

    def groups(self, tensor):
        """Returns a number for each channel, the same for tied channels."""
        return np.array([self._root(n) for n in self._numbers(tensor, None)])

    def find_required(self, pinned, requirements):
        """Finds which channels must stay.

        All of `pinned` do. Each of `requirements`, given what is known so far,
        yields `(tensor, required)` with a bool array.
        """
        roots = np.array(
            [self._root(n) for n in range(len(self._parents))], "int64"
        )
        self._keep = np.zeros(len(roots), bool)

        def require(tensor, required):
            numbers = self._numbers(tensor, np.flatnonzero(required))
            wanted = np.zeros(len(roots), bool)
            wanted[roots[numbers]] = True
            added = wanted[roots] & ~self._keep
            self._keep |= added
            return bool(added.any())

        for tensor in pinned:
            require(tensor, np.ones(width(tensor), bool))
        changed = True
        while changed:
            changed = False
            for requirement in requirements:
                for tensor, required in requirement(self):
                    changed |= require(tensor, required)
            if changed:
                continue
            # A tensor without channels would be no tensor.
            for tensor in self._tensors:
                if width(tensor) and not self.kept(tensor).any():
                    first = np.arange(width(tensor)) == 0
                    changed |= require(tensor, first)

    def kept(self, tensor):
        """Returns a bool array: which channels of a tensor stay."""
        begin = self._start[id(tensor)]
        return self._keep[begin : begin + width(tensor)]

    def _numbers(self, tensor, places):
        begin = self._start[id(tensor)]
        if places is None:
            places = np.arange(width(tensor))
        return begin + np.asarray(places, "int64")

    def _root(self, number):
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number


def width(tensor):
    """Returns the number of channels of a tensor, 0 if it has none."""
    if not tensor.shape or tensor.shape[-1] is None:
        return 0
    return tensor.shape[-1]
