"""Quantization-aware training."""

from tf_gems.quantization import quantization_aware_model

QuantizationAwareModel = quantization_aware_model.QuantizationAwareModel

__all__ = ["QuantizationAwareModel"]
