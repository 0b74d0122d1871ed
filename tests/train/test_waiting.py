from __future__ import annotations

import torch

from actograph.train.waiting import Waiting


def test_what_waits_comes_in_order_with_its_note_whatever_its_shape() -> None:
    waiting = Waiting[str]()
    waiting.add("loss", torch.tensor(0.5, requires_grad=True))
    waiting.add("norms", torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16))
    waiting.add("none", torch.zeros(0))
    waiting.add("exact", torch.tensor(1 / 3, dtype=torch.float64))
    taken = [(note, numbers.tolist()) for note, numbers in waiting.take()]
    assert taken == [("loss", [0.5]), ("norms", [1.0, 2.0]), ("none", []), ("exact", [1 / 3])]
    assert waiting.take() == []


def test_it_tells_how_many_wait() -> None:
    waiting = Waiting[int]()
    waiting.add(3, torch.zeros(2))
    assert len(waiting) == 1
    waiting.take()
    assert len(waiting) == 0
