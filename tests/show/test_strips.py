from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from actograph.show.spectrum import spectrum
from actograph.show.strips import color_strip, pixel_columns, unit_strip
from actograph.show.timeaxis import step_edges

from .runs import healthy_run


def opened(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png))


def test_a_strip_shows_every_row_with_clear_cells_where_there_is_nothing() -> None:
    view = healthy_run()
    rows, edges = spectrum(view, 0), step_edges(view)
    picture = np.asarray(opened(color_strip(rows, edges)))
    assert len(picture) == rows.edges[-1] - rows.edges[0]
    columns = pixel_columns(edges, picture.shape[1])
    zero = int(rows.edges[-1]) - 1  # counted from the top: the row about zero is two high
    expected = rows.log_counts[rows.lows == rows.highs][0][columns] > 0
    assert np.array_equal(picture[zero] > 0, expected)
    assert np.array_equal(picture[0] > 0, rows.log_counts[-1][columns] > 0)


def test_more_counts_are_a_higher_shade() -> None:
    view = healthy_run()
    rows, edges = spectrum(view, 0), step_edges(view)
    picture = np.asarray(opened(color_strip(rows, edges)))
    shades, counts = picture[0], rows.log_counts[-1][pixel_columns(edges, picture.shape[1])]
    order = np.argsort(counts)
    assert np.all(np.diff(shades[order].astype(int)) >= 0)
    assert picture.max() == 255


def test_pixel_columns_are_as_wide_as_their_steps() -> None:
    columns = pixel_columns(np.array([-0.5, 7.5, 8.5, 9.5]), width=100)
    assert np.bincount(columns).tolist() == [80, 10, 10]


@pytest.mark.parametrize(("units", "rows"), [(3, 3), (1000, 256)])
def test_units_have_a_row_each_until_there_are_too_many(units: int, rows: int) -> None:
    fired = np.ones((2, units), np.bool_)
    fired[1, 0] = False
    picture = np.asarray(opened(unit_strip(fired, np.array([0.0, 1.0, 2.0]))))
    assert len(picture) == rows
    shown = picture[0, -1] != picture[0, 0]
    assert shown == (units == 3)  # among many, a row is marked where all its units are silent
    assert np.all(picture[1:] == picture[0, 0])
