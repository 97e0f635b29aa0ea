"""Pictures of the mask of a pruned layer."""

import base64

import keras
import numpy as np

from tf_gems.text import printable

_LARGEST = 1024


def pictures(model, image_shape):
    """Returns pictures of the first pruned weight of a model.

    Returns:
        List of dicts: `caption`, `width`, `height`, and `pixels`, gray values
        as base64. The first picture is the mask, inputs by outputs. For a
        dense layer that reads all pixels, a second one shows the number of
        kept weights of each pixel.
    """
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        path = printable(weight.path)
        if value.ndim < 2 or value.all():
            continue
        mask = (value != 0).reshape(-1, value.shape[-1])
        found = []
        if max(mask.shape) <= _LARGEST:
            kept = f"{np.count_nonzero(mask):,} of {mask.size:,} weights"
            caption = (
                f"{path}: inputs (rows) by outputs (columns), {kept} "
                "kept (white)"
            )
            found.append(_picture(mask, caption))
        if value.ndim == 2 and len(mask) == np.prod(image_shape):
            counts = mask.sum(1).reshape(*image_shape[:2], -1).sum(-1)
            caption = (
                f"{path}: the pixels it reads, up to {counts.max()} weights "
                "each (white)"
            )
            found.append(_picture(counts / max(1, counts.max()), caption))
        return found
    return []


def _picture(values, caption):
    pixels = np.round(255 * values.astype(float)).astype(np.uint8)
    return {
        "caption": caption,
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "pixels": base64.b64encode(pixels.tobytes()).decode(),
    }
