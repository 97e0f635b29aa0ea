"""Stems and strides of the MobileNets, by the size of their images."""

from tf_gems.validation import check_choice

# The stride of the stem, and how many of the next strides are left out.
_STEMS = {"imagenet": (2, 0), "small": (2, 2), "cifar": (1, 1)}


def strides_of(stem, strides):
    """Returns the stride of the stem, and those of what follows.

    Args:
        stem: `"imagenet"`, `"small"` or `"cifar"`.
        strides: List of integers, for images of 224 pixels.

    Returns:
        Tuple of an integer and a list of integers.

    Example:

    >>> strides_of("small", [1, 2, 1, 2, 2])
    (2, [1, 1, 1, 1, 2])
    """
    first, left_out = _STEMS[check_choice(stem, "stem", _STEMS)]
    found = []
    for stride in strides:
        if stride > 1 and left_out:
            stride, left_out = 1, left_out - 1
        found.append(stride)
    return first, found
