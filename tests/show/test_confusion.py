from __future__ import annotations

import numpy as np
import pytest

from actograph.errors import UsageError
from actograph.show.confusion import MOST_PX, MOST_WRITTEN, confusion_figure


def test_colours_are_shares_of_the_row_and_cells_tell_the_counts() -> None:
    figure = confusion_figure([[3, 1, 0], [0, 4, 4], [0, 0, 0]])
    (cells,) = figure.data
    assert cells.z.tolist() == [
        [0.75, 0.25, 0.0],
        [0.0, 0.5, 0.5],
        [0.0, 0.0, 0.0],
    ]  # a class without samples
    assert [list(row) for row in cells.text] == [["3", "1", ""], ["", "4", "4"], ["", "", ""]]
    assert list(cells.x) == ["0", "1", "2"]
    assert figure.layout.yaxis.autorange == "reversed"  # the first class on top


def test_many_classes_are_drawn_without_numbers() -> None:
    num_classes = MOST_WRITTEN + 70
    figure = confusion_figure(np.eye(num_classes, dtype=int))
    assert figure.data[0].text is None
    assert figure.layout.height == MOST_PX


def test_what_is_no_confusion_matrix_is_refused() -> None:
    with pytest.raises(UsageError, match=r"the shape is \(2, 3\)"):
        confusion_figure(np.ones((2, 3)))
    with pytest.raises(UsageError, match="3 class names for 2 classes"):
        confusion_figure(np.eye(2), ["a", "b", "c"])
