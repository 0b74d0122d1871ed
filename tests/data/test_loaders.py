from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actograph.data import Loaders, TensorLoader, check_finite
from actograph.errors import UsageError


def loader(n: int = 10, batch_size: int = 3, **options: object) -> TensorLoader:
    return TensorLoader(torch.arange(float(n)), torch.arange(n), batch_size, **options)  # type: ignore[arg-type]


def order(of: TensorLoader) -> list[int]:
    return [int(y) for _, batch in of for y in batch]


@given(n=st.integers(1, 30), batch_size=st.integers(1, 12), shuffle=st.booleans(), drop_last=st.booleans())
def test_an_epoch_is_every_sample_once_in_len_batches(
    n: int, batch_size: int, shuffle: bool, drop_last: bool
) -> None:
    drop_last = drop_last and n >= batch_size
    batches = list(one := loader(n, batch_size, shuffle=shuffle, drop_last=drop_last))
    assert len(batches) == len(one) == (n // batch_size if drop_last else -(-n // batch_size))
    assert all(len(x) == batch_size for x, _ in batches[: None if drop_last else -1])
    seen = torch.cat([y for _, y in batches])
    assert len(seen) == (n // batch_size * batch_size if drop_last else n)
    assert len(set(seen.tolist())) == len(seen)
    assert all(torch.equal(x, y.float()) for x, y in batches)


def test_every_epoch_has_another_order_and_a_seed_repeats_them_all() -> None:
    one, other = loader(30, shuffle=True, seed=5), loader(30, shuffle=True, seed=5)
    epochs = [order(one) for _ in range(3)]
    assert epochs == [order(other) for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert order(loader(30, shuffle=True, seed=6)) not in epochs


def test_an_epoch_has_the_same_order_whatever_happened_before() -> None:
    one, other = loader(30, shuffle=True), loader(30, shuffle=True)
    third = [order(one) for _ in range(3)][2]
    next(iter(other))
    torch.manual_seed(123)
    other.epoch = 2
    assert order(other) == third


def test_shuffling_leaves_the_global_random_state_alone() -> None:
    before = torch.get_rng_state()
    order(loader(shuffle=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shuffle", [True, False])
def test_batches_may_be_changed_in_place_without_changing_the_data(shuffle: bool) -> None:
    one = loader(shuffle=shuffle)
    for x, y in one:
        x.zero_()
        y.zero_()
    assert one.x.sum() == 45
    assert one.y.sum() == 45


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (torch.ones(3), torch.ones(2), {}, r"x has shape \(3,\) and y \(2,\); give one y for every x"),
        (torch.ones(()), torch.ones(()), {}, r"x has shape \(\)"),
        (torch.ones(0, 2), torch.ones(0), {}, "hold no samples"),
        (
            torch.ones(3),
            torch.ones(3),
            {"batch_size": 0},
            "batch_size is 0; give a whole number of at least 1",
        ),
        (torch.ones(3), torch.ones(3), {"drop_last": True}, "3 samples are fewer than batch_size 64"),
        (torch.ones(3), torch.ones(3), {"seed": -1}, "seed is -1; give a whole number of at least 0"),
    ],
)
def test_what_cannot_be_loaded_is_refused(
    x: Tensor, y: Tensor, options: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        TensorLoader(x, y, **options)  # type: ignore[arg-type]


def test_loaders_are_a_plain_record_of_two_iterables() -> None:
    loaders = Loaders(train=[(torch.ones(1), torch.ones(1))])
    assert loaders.valid is None
    with pytest.raises(FrozenInstanceError):
        loaders.valid = []  # type: ignore[misc]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ([float("nan"), 1.0, float("inf")], r"data: 1 NaN and 1 infinite values of 4, the first at \[1\]"),
        ([1.0, -float("inf"), 2.0], r"data: 0 NaN and 1 infinite values of 4, the first at \[2\]"),
    ],
)
def test_values_that_are_not_finite_are_counted_and_located(bad: list[float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_finite(torch.tensor([0.0, *bad]), "data")
    check_finite(torch.tensor([0.0, 1.0]), "data")
    check_finite(torch.tensor([0, 1]), "data")
