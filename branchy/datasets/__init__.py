"""Data sets as numpy: a folder of images, an `.npz` or a name; without TensorFlow, as devices read them too."""

from branchy.datasets.dataset import Dataset, Part
from branchy.datasets.loading import load
from branchy.datasets.splits import stratified

__all__ = ["Dataset", "Part", "load", "stratified"]
