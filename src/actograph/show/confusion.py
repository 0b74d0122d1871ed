"""A confusion matrix as a figure.

No idea of models or metrics: counts come in, a figure comes out.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from numpy.typing import ArrayLike

from actograph.errors import UsageError
from actograph.show.figures import base_figure

CELL_PX, LEAST_PX, MOST_PX = 36, 320, 900
MOST_WRITTEN = 30  # classes; of more the cells are too small for numbers


def confusion_figure(counts: ArrayLike, class_names: Sequence[str] = ()) -> go.Figure:
    """Draw how often each class (row) was taken for which (column); colours are shares of the row.

    ``counts`` is (classes, classes). Without names the classes are numbered. Raises UsageError for counts that are not
    square, or names that are too few or too many.

    >>> confusion_figure([[3, 1], [0, 4]], ["cat", "dog"]).data[0].z.tolist()
    [[0.75, 0.25], [0.0, 1.0]]
    """
    matrix = np.asarray(counts, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:  # noqa: PLR2004 - rows and columns
        raise UsageError(f"a confusion matrix has as many rows as columns, but the shape is {matrix.shape}")
    names = list(class_names) or [str(number) for number in range(len(matrix))]
    if len(names) != len(matrix):
        raise UsageError(f"there are {len(names)} class names for {len(matrix)} classes; give one for each")
    totals = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, totals, out=np.zeros_like(matrix), where=totals > 0)
    is_written = len(names) <= MOST_WRITTEN
    figure = base_figure(go.Figure(), height=_height(len(names)))
    figure.add_heatmap(
        x=names, y=names, z=shares, customdata=matrix, colorscale="Blues", zmin=0, zmax=1,
        text=_written(matrix) if is_written else None, texttemplate="%{text}" if is_written else None,
        colorbar={"title": "share of the row", "tickformat": ".0%"},
        hovertemplate="%{y} taken for %{x}<br>%{customdata:,} times, %{z:.1%} of %{y}<extra></extra>",
    )  # fmt: skip
    figure.update_xaxes(title="taken for", type="category", showgrid=False)
    figure.update_yaxes(title="class", type="category", autorange="reversed", showgrid=False)
    return figure.update_layout(margin={"l": 90, "r": 14, "t": 20, "b": 60}, width=_height(len(names)) + 150)


def _written(matrix: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> list[list[str]]:
    return [[f"{count:.0f}" if count else "" for count in row] for row in matrix]


def _height(num_classes: int) -> int:
    return min(max(num_classes * CELL_PX + 80, LEAST_PX), MOST_PX)
