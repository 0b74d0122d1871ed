from __future__ import annotations

import torch

from actograph.data.loaders import Loaders, TensorLoader
from actograph.study.pace import Pacer, measure_paces
from actograph.study.setup import Setup


def images(batch_size: int, seed: int) -> Loaders:
    x, y = torch.zeros(30, 1, 8, 8), torch.zeros(30, dtype=torch.long)
    loader = TensorLoader(x, y, batch_size, seed=seed)
    return Loaders(loader, loader, num_classes=2, input_size=(1, 8, 8))


def test_samples_are_counted_as_they_come() -> None:
    pacer = Pacer(Setup(images, "mlp", lr=0.01), 20, seed=0)
    seconds, num_samples = pacer.run(3)  # after three: 10, 20, 10
    assert num_samples == 40
    assert seconds > 0


def test_every_size_has_a_turn_in_every_round() -> None:
    paces = measure_paces(Setup(images, "mlp", lr=0.01), [4, 8], seed=0, num_rounds=2)
    assert {size: len(rounds) for size, rounds in paces.items()} == {4: 2, 8: 2}
    assert all(pace > 0 for rounds in paces.values() for pace in rounds)
