"""Load weights files of other programs into the networks that they belong to."""

from affinitynet.models.weights.layouts import Weights
from affinitynet.models.weights.loading import (
    ConversionReport,
    convert_weights,
    load_backbone,
    load_weights,
)

__all__ = [
    "ConversionReport",
    "Weights",
    "convert_weights",
    "load_backbone",
    "load_weights",
]
