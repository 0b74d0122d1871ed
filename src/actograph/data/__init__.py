"""Data for training: in-memory loaders, the built-in digits, and folders of images."""

from actograph.data.checks import check_finite
from actograph.data.digits import digits
from actograph.data.image_folder import image_folder
from actograph.data.loaders import Batch, Loaders, TensorLoader
from actograph.data.normalization import Normalization
from actograph.data.open_data import open_data

__all__ = [
    "Batch",
    "Loaders",
    "Normalization",
    "TensorLoader",
    "check_finite",
    "digits",
    "image_folder",
    "open_data",
]
