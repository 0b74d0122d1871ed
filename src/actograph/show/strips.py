"""Pictures as small PNG files: the colorful dimension and the units of a layer, one strip each.

No idea of axes or pages; the figures put a strip into labelled axes.
"""

from __future__ import annotations

import base64
import functools
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from plotly.colors import get_colorscale, sample_colorscale, unlabel_rgb

from actograph.layout.row import Floats
from actograph.runlog.flags import Flags
from actograph.show import theme
from actograph.show.spectrum import Spectrum

WIDTH_PX = 640  # twice the columns of a full timeline, so that every bucket has one
MAX_UNITS_PX = 256
COLOURS = 255  # and one that is clear, for "none"
CLEAR = 0
FIRED, SILENT = 1, 2


def color_strip(rows: Spectrum, step_edges: Floats) -> bytes:
    """Return the PNG of a spectrum: columns of true width, highest value on top, cells without values clear."""
    highest = max(float(rows.log_counts.max(initial=0.0)), 1e-9)
    shades = np.ceil(rows.log_counts / highest * COLOURS).astype(np.uint8)
    heights = np.diff(rows.edges).round().astype(np.int64)
    tall = np.repeat(shades[::-1], heights[::-1], axis=0)
    return _png(tall[:, pixel_columns(step_edges)], [(0, 0, 0), *_shades()])


def unit_strip(fired: Flags, step_edges: Floats) -> bytes:
    """Return the PNG of a layer's units (T, U): one row a unit, first on top, marked where it did not fire at all.

    Beyond `MAX_UNITS_PX` units a row stands for several and is marked where all of them were silent.
    """
    num_units = fired.shape[1]
    groups = np.array_split(np.arange(num_units), min(num_units, MAX_UNITS_PX))
    rows = np.stack([fired[:, group].any(axis=1) for group in groups])
    shades = np.where(rows, FIRED, SILENT).astype(np.uint8)
    return _png(shades[:, pixel_columns(step_edges)], [(0, 0, 0), _rgb(theme.FIRED), _rgb(theme.RED)])


def data_uri(png: bytes) -> str:
    """Return a PNG as a source that needs no file."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def pixel_columns(step_edges: Floats, width: int = WIDTH_PX) -> NDArray[np.int64]:
    """Return for each pixel column the bucket it shows (width,): the one its middle lies in."""
    num_buckets = len(step_edges) - 1
    middles = step_edges[0] + (np.arange(width) + 0.5) / width * (step_edges[-1] - step_edges[0])
    columns: NDArray[np.int64] = np.searchsorted(step_edges, middles, side="right") - 1
    return columns.clip(0, num_buckets - 1)


@functools.cache
def _shades() -> list[tuple[int, ...]]:
    samples = sample_colorscale(get_colorscale(theme.SEQUENTIAL), np.linspace(0, 1, COLOURS).tolist())
    return [tuple(round(part) for part in unlabel_rgb(sample)) for sample in samples]


def _png(shades: NDArray[np.uint8], colours: list[tuple[int, ...]]) -> bytes:
    image = Image.fromarray(np.ascontiguousarray(shades))
    image.putpalette([part for colour in colours for part in colour])  # turns grey values into indices
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=CLEAR, optimize=True)
    return buffer.getvalue()


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))
