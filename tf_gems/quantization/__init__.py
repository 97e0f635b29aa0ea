"""Quantization-aware training."""

from tf_gems.quantization.quantization_aware_model import (
    QuantizationAwareModel,
)

__all__ = ["QuantizationAwareModel"]
