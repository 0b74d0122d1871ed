from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from actograph.callbacks.mixing import CutMix, Mixing, MixUp, box_side
from actograph.errors import UsageError
from actograph.testing.callbacks import tiny_loop, weights
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import Batch, Phase
from actograph.train.step import Supervised


class Batches(Callback):
    """Keep what the training batches are after mixing, with the loss."""

    stage = Stage.MEASURE

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def after_loss(self, loop: Loop) -> None:
        if loop.progress.phase is Phase.TRAIN:
            batch = loop.batch
            self.seen.append((batch.x, batch.y, batch.pred.detach(), batch.loss.detach()))


def image_loop(targets: Callable[[int], Tensor] = lambda size: torch.randint(0, 3, (size,))) -> Loop:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Flatten(), nn.Linear(2 * 6 * 8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    batches = [(torch.rand(size, 2, 6, 8), targets(size)) for size in (7, 7, 4)]
    return Loop(model, optimizer, Supervised(model, nn.functional.cross_entropy, optimizer), batches, batches)


def mixed_with(cls: type[Mixing], x: Tensor, y: Tensor, number: int) -> tuple[Tensor, Tensor, float]:
    """Return partners, their targets and the share drawn, from the documented random numbers."""
    rng = np.random.default_rng((0, number))
    share = rng.beta(cls().alpha, cls().alpha)  # type: ignore[call-arg]
    order = torch.from_numpy(rng.permutation(len(x)))
    return x[order], y[order], max(share, 1 - share)


def test_mixup_blends_inputs_and_losses_with_one_share() -> None:
    loop, seen = image_loop(), Batches()
    loop.fit(1, [MixUp(), seen])
    for number, ((x, y), (mixed, target, pred, loss)) in enumerate(
        zip(loop.train_loader, seen.seen, strict=True)
    ):
        partner, partner_y, share = mixed_with(MixUp, x, y, number)
        assert torch.allclose(mixed, share * x + (1 - share) * partner, atol=1e-6)
        assert torch.equal(target, y)
        both = torch.zeros(len(y), 3)
        both[range(len(y)), y] += share
        both[range(len(y)), partner_y] += 1 - share
        assert torch.allclose(
            loss, nn.functional.cross_entropy(pred, both), atol=1e-6
        )  # as with soft targets


def test_cutmix_pastes_one_box_and_mixes_losses_by_its_area() -> None:
    loop, seen = image_loop(), Batches()
    loop.fit(4, [CutMix(), seen])
    for number, (mixed, _, pred, loss) in enumerate(seen.seen):
        x, y = list(loop.train_loader)[number % 3]
        partner, partner_y, _ = mixed_with(CutMix, x, y, number)
        is_pasted = (mixed != x).any(dim=0).any(dim=0)  # (H, W)
        rows, columns = is_pasted.any(1), is_pasted.any(0)
        assert torch.equal(is_pasted, rows[:, None] & columns[None, :])  # a rectangle
        assert torch.equal(mixed[..., is_pasted], partner[..., is_pasted])
        kept = 1 - is_pasted.double().mean()
        expected = kept * nn.functional.cross_entropy(pred, y)
        expected += (1 - kept) * nn.functional.cross_entropy(pred, partner_y)
        assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("share", [0.5, 0.75, 0.9])
def test_a_box_inside_the_image_leaves_its_share(share: float) -> None:
    rng = np.random.default_rng(0)
    sides = [box_side(1000, share, rng) for _ in range(100)]
    assert all(0 <= begin <= end <= 1000 for begin, end in sides)
    longest = max(end - begin for begin, end in sides)
    assert 1 - (longest / 1000) ** 2 == pytest.approx(share, abs=0.01)
    begin, end = box_side(1000, 1.0, rng)
    assert begin == end  # nothing is pasted


def test_validation_is_untouched_and_nothing_else_draws_other_numbers() -> None:
    plain, mixed = image_loop(), image_loop()
    torch.manual_seed(1)
    np.random.seed(1)
    plain.fit(1)
    random = torch.rand(1), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)
    mixed.fit(1, [MixUp()])
    assert (torch.rand(1), np.random.rand()) == random
    assert mixed.values["valid_loss"] == plain.values["valid_loss"]
    assert mixed.values["train_loss"] != plain.values["train_loss"]


def test_numbers_as_targets_are_mixed_too() -> None:
    loop, seen = image_loop(lambda size: torch.randn(size, 3)), Batches()
    loop.step = Supervised(loop.model, nn.functional.mse_loss, loop.optimizer)
    loop.fit(1, [MixUp(), seen])
    x, y = next(iter(loop.train_loader))
    _, partner_y, share = mixed_with(MixUp, x, y, 0)
    _, _, pred, loss = seen.seen[0]
    mse = nn.functional.mse_loss
    assert loss == pytest.approx(float(share * mse(pred, y) + (1 - share) * mse(pred, partner_y)), rel=1e-5)


def test_it_goes_on_from_its_saved_state() -> None:
    through, first, second = MixUp(), MixUp(), MixUp()
    loops = [tiny_loop() for _ in range(2)]
    for loop in loops:
        loop.model[2].p = 0.0  # type: ignore[index]
    loops[0].fit(2, [through])
    loops[1].fit(1, [first])
    second.load_state_dict(first.state_dict())
    loops[1].fit(1, [second])
    assert through.state_dict() == second.state_dict() == {"num_batches": 6}
    assert weights(loops[0].model) == weights(loops[1].model)


def test_another_seed_mixes_otherwise() -> None:
    losses = []
    for seed in (0, 0, 1):
        loop = image_loop()
        loop.fit(1, [MixUp(seed=seed)])
        losses.append(loop.values["train_loss"])
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("make", "x", "y", "told"),
    [
        (MixUp, torch.zeros(3, 2, dtype=torch.int64), torch.zeros(3), "int64"),
        (MixUp, (torch.zeros(3),), torch.zeros(3), r"\[float32"),
        (MixUp, torch.zeros(3, 2), {"a": torch.zeros(3)}, "a: float32"),
        (MixUp, torch.zeros(3, 2), torch.zeros(4), r"\(4,\)"),
        (MixUp, torch.zeros(()), torch.zeros(3), r"\(\)"),
        (CutMix, torch.zeros(3, 2), torch.zeros(3), "images"),
    ],
)
def test_what_cannot_be_mixed_is_refused(make: Callable[[], Mixing], x: object, y: object, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        make().check(Batch(x, y))


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("inf"), float("nan")])
def test_alpha_is_a_positive_number(alpha: float) -> None:
    with pytest.raises(UsageError, match=f"alpha={alpha}"):
        MixUp(alpha)
