from __future__ import annotations

import numpy as np

from actograph.layout.layer import LayerInfo
from actograph.layout.row import empty_rows
from actograph.recording.order import LayerOrder
from actograph.testing.synthetic import RELU, layer

FIRST, SECOND, THIRD = (
    layer("first", "ReLU", 5, RELU),
    layer("second", "ReLU", 12, RELU),
    layer("third", "Linear", 3),
)


def test_in_a_new_run_the_orders_are_the_same() -> None:
    order = LayerOrder()
    run: list[LayerInfo] = []
    for one in (FIRST, SECOND):
        assert order.add(one, run)
        run.append(one)
    parts = empty_rows(2), np.ones((2, 4), np.uint32), np.ones(3, np.uint8)
    assert order.apply(*parts, run)[0] is parts[0]


def test_layers_of_a_run_that_was_taken_up_keep_their_places() -> None:
    order, run = LayerOrder(), [FIRST, THIRD, SECOND]
    assert not order.add(SECOND, run)
    assert not order.add(FIRST, run)
    new = layer("new", "Linear", 2)
    assert order.add(new, run)
    run.append(new)
    rows = empty_rows(3)
    rows[:, 0] = [2.0, 1.0, 4.0]
    hist = np.array([[2], [1], [4]], np.uint32)
    fired = np.array([21, 22, 11], np.uint8)  # two bytes of the second layer, one of the first
    all_rows, all_hist, all_fired = order.apply(rows, hist, fired, run)
    np.testing.assert_array_equal(all_rows[[0, 2, 3], 0], [1.0, 2.0, 4.0])
    np.testing.assert_array_equal(all_rows[1], empty_rows(1)[0])
    assert all_hist.tolist() == [[1], [0], [2], [4]]
    assert all_fired.tolist() == [11, 21, 22]


def test_of_two_layers_of_one_name_each_has_its_own_place() -> None:
    order, run = LayerOrder(), [FIRST, FIRST]
    assert not order.add(FIRST, run)
    assert not order.add(FIRST, run)
    assert order.num_layers == 2
    assert order.add(FIRST, run)
