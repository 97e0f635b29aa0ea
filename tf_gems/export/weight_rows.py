"""The weights of an exported file, as rows of a report.

The converter renames weights, transposes them, rounds them, and multiplies
each channel by a factor if a normalization follows. A stored weight `w` was
made from a kernel `k` if, with the axes in the same order and for each channel
`c`,

    w[c] = s[c] * k[c],    s[c] = <w[c], k[c]> / <k[c], k[c]>,

up to rounding. If exactly one kernel of the network has these values, the
weight has its name. Otherwise it keeps the name that it has in the file.
"""

import numpy as np

from tf_gems.export import flatbuffer
from tf_gems.export import sparse_tensor
from tf_gems.pruning_report import unique_paths

# The axes of Keras, in the orders in which TFLite may store them.
_ORDERS = ((0, 0), (-1, 0), (-2, 0), (0, -1))
# The largest rounding error: a fraction of the largest value of the channel,
# and what is added to it, which is in steps for integers.
_ROUNDING = {"float32": (1e-5, 0), "float16": (2e-3, 1e-7), "int8": (0, 0.75)}
_PIECE = 1 << 20


def row(name, value, size, encoding="dense", reason=None):
    """Returns one of the dicts of `tf_gems.ExportReport.tensors`."""
    zeros = value.size - np.count_nonzero(value) if value.ndim > 1 else 0
    return {
        "name": name,
        "shape": list(value.shape),
        "type": value.dtype.name,
        "zeros": int(zeros),
        "encoding": encoding,
        "bytes": int(size),
        "reason": reason,
    }


def rows(model, names=None, reasons=None):
    """Returns a dict from the place of each weight of a file to its row."""
    found = {}
    for weight in flatbuffer.weights(model):
        place, tensor = weight.place, weight.tensor
        size = len(model.buffers[tensor.buffer].data)
        encoding = "dense"
        if tensor.sparsity is not None:
            encoding = "sparse"
            size += sparse_tensor.index_bytes(tensor.sparsity)
        name = (names or {}).get(place) or tensor.name.decode()
        reason = (reasons or {}).get(place)
        found[place] = row(name, weight.value, size, encoding, reason)
    return found


def names_of(model, network):
    """Returns the paths of the variables that dense weights were made from.

    The keys are places, see `flatbuffer.Weight`. A weight that matches no
    variable, or several, is left out.
    """
    variables = network.weights
    kernels = [
        (path, np.asarray(variable.numpy(), "float32"))
        for path, variable in zip(
            unique_paths(variables), variables, strict=True
        )
        if len(variable.shape) > 1
    ]
    found = {}
    for weight in flatbuffer.weights(model):
        views = _views(weight.value)
        paths = [
            path
            for path, kernel in kernels
            if kernel.size == weight.value.size and _matches(views, kernel)
        ]
        if len(paths) == 1:
            [found[weight.place]] = paths
    return found


def _views(value):
    """Returns matrices with a row for each channel of the first or last axis.

    Each comes with its axis and the number of the row with the fewest zeros.
    """
    found = []
    for axis in (0, -1):
        rows = np.moveaxis(value, axis, 0).reshape(value.shape[axis], -1)
        if rows.shape[1] > 1:  # one factor for each value would fit always
            fullest = int(np.count_nonzero(rows, axis=1).argmax())
            found.append((axis, rows, fullest))
    return found


def _matches(views, kernel):
    """Whether a kernel, with its axes in some order, has those channels."""
    for order in _ORDERS:
        moved = np.moveaxis(kernel, *order)
        for axis, ours, row in views:
            count, size = ours.shape
            # One row is compared first. It excludes most kernels.
            part = slice(row * size, (row + 1) * size)
            if axis == -1:
                part = slice(row, None, count)
            if not _proportional(ours[[row]], moved.flat[part][None]):
                continue
            theirs = (
                moved.reshape(count, size)
                if axis == 0
                else moved.reshape(size, count).T
            )
            if _proportional(ours, theirs):
                return True
    return False


def _proportional(ours, theirs):
    """Whether each row is the other one times a factor, up to rounding."""
    if ours.any() != theirs.any():
        return False
    share, more = _ROUNDING[ours.dtype.name]
    step = max(1, _PIECE // ours.shape[1])
    for start in range(0, len(ours), step):  # a large weight takes no memory
        w = ours[start : start + step].astype("float32")
        k = theirs[start : start + step]
        squares = (k**2).sum(axis=1)
        factors = (w * k).sum(axis=1) / np.where(squares, squares, 1)
        limits = share * np.abs(w).max(axis=1, keepdims=True) + more
        if (np.abs(w - factors[:, None] * k) > limits).any():
            return False
    return True
