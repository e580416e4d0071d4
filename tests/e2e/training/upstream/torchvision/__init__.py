"""Stands in for torchvision where there is none: what upstream's examples take of it, without a download and small."""

from . import datasets, models, transforms

__all__ = ["datasets", "models", "transforms"]
