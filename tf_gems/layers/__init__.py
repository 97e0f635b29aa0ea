"""Layers and masks."""

from tf_gems.layers.gem_layer import GemLayer
from tf_gems.layers.mask import RoundMask
from tf_gems.layers.mask import straight_through
from tf_gems.layers.top_k_mask import TopKMask

__all__ = ["GemLayer", "RoundMask", "TopKMask", "straight_through"]
