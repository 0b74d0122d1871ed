"""One image file as the pixels a model was trained on: upright, resized, grey or in colour.

No idea of normalisation or models.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from actograph.data.image_folder import RGB_CHANNELS, on_white, read_with
from actograph.errors import UsageError


def read_image(file: Path, input_size: tuple[int, ...]) -> Tensor:
    """Decode a PNG or JPEG as `image_folder` does: uint8 of ``input_size``, (channels, height, width).

    A colour image becomes grey where one channel is asked, and a grey one gets three equal channels where three are. Raises
    UsageError that names a file that is not there or cannot be read, and for sizes that are no image's.
    """
    if len(input_size) != 3 or input_size[0] not in (1, RGB_CHANNELS):  # noqa: PLR2004 - channels, height, width
        raise UsageError(f"the model takes inputs of shape {input_size}, which an image file cannot give")
    if not file.is_file():
        raise UsageError(f"no image {file}; give the path of a PNG or JPEG")
    channels, height, width = input_size

    def decode(image: Image.Image) -> Tensor:
        upright = on_white(ImageOps.exif_transpose(image)).resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.asarray(upright.convert("L" if channels == 1 else "RGB"))
        return torch.from_numpy(pixels.reshape(height, width, channels).copy()).permute(2, 0, 1)

    return read_with(file, decode)
