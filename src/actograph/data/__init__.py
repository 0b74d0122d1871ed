"""Data for training: in-memory loaders, built-in digits, images in folders and arrays, augmentations."""

from actograph.data.augment import (
    Compose,
    Cutout,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    Transform,
)
from actograph.data.checks import check_finite
from actograph.data.digits import digits
from actograph.data.idx import idx_folder
from actograph.data.image_folder import image_folder
from actograph.data.loaders import Batch, Loaders, TensorLoader
from actograph.data.normalization import Normalization
from actograph.data.npz import npz_file
from actograph.data.open_data import open_data

__all__ = [
    "Batch",
    "Compose",
    "Cutout",
    "Loaders",
    "Normalization",
    "RandomAffine",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "TensorLoader",
    "Transform",
    "check_finite",
    "digits",
    "idx_folder",
    "image_folder",
    "npz_file",
    "open_data",
]
