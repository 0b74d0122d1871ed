from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from actograph.data import TensorLoader, loaders
from actograph.errors import UsageError

SAMPLES, BATCH_SIZE = 23, 4


def noisy(x: Tensor, generator: torch.Generator) -> Tensor:
    return x + torch.rand(x.shape, generator=generator)


def loader(**options: object) -> TensorLoader:
    settings = {"batch_size": BATCH_SIZE, "shuffle": True, "seed": 7, "transform": noisy} | options
    return TensorLoader(torch.arange(float(SAMPLES)), torch.arange(SAMPLES), **settings)  # type: ignore[arg-type]


def take(one: TensorLoader, epoch: int, batch: int) -> None:
    """Read whole epochs, then some batches of the next one."""
    for _ in range(epoch):
        list(one)
    iterator = iter(one)
    for _ in range(batch):
        next(iterator)


def equal(one: list[tuple[Tensor, Tensor]], other: list[tuple[Tensor, Tensor]]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in zip(one, other, strict=True)
    )


@given(
    epoch=st.integers(0, 3),
    batch=st.integers(0, 6),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    chunk_bytes=st.sampled_from([1, 100, 2**21]),
)
def test_a_loaded_state_goes_on_with_the_same_batches_and_the_same_later_epochs(
    epoch: int, batch: int, shuffle: bool, drop_last: bool, chunk_bytes: int
) -> None:
    batch = min(batch, SAMPLES // BATCH_SIZE if drop_last else 6)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loaders, "CHUNK_BYTES", chunk_bytes)
        saved = loader(shuffle=shuffle, drop_last=drop_last)
        expected = [list(saved) for _ in range(epoch + 3)]
        saved.epoch = 0
        take(saved, epoch, batch)
        state = json.loads(json.dumps(saved.state_dict()))
        resumed = loader(shuffle=shuffle, drop_last=drop_last)
        take(resumed, 1, 2)
        resumed.load_state_dict(state)
        assert resumed.state_dict() == state
        assert len(resumed) == len(saved)
        assert equal(list(resumed), expected[epoch][batch:])
        assert equal(list(resumed), expected[epoch + 1])
        assert equal(list(resumed), expected[epoch + 2])


def test_a_state_after_a_whole_epoch_goes_on_with_the_next_one() -> None:
    one = loader()
    assert (one.state_dict()["epoch"], one.state_dict()["batch"]) == (0, 0)
    list(one)
    assert (one.state_dict()["epoch"], one.state_dict()["batch"]) == (1, 0)
    for _ in one:
        state = one.state_dict()  # stands after the last batch, not yet asked for one more
    assert (state["epoch"], state["batch"]) == (1, len(one))
    one.load_state_dict(state)
    assert list(one) == []
    assert one.epoch == 2


def test_the_state_is_that_of_the_newest_iterator() -> None:
    one = loader()
    old = iter(one)
    take(one, 0, 3)
    next(old)
    assert (one.state_dict()["epoch"], one.state_dict()["batch"]) == (1, 3)
    list(old)
    assert (one.state_dict()["epoch"], one.state_dict()["batch"]) == (1, 3)


def test_setting_the_epoch_forgets_the_position() -> None:
    one = loader()
    take(one, 0, 3)
    one.epoch = 5
    assert (one.state_dict()["epoch"], one.state_dict()["batch"]) == (5, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 5}, "of a loader with batch_size 4, but this one has 5"),
        ({"seed": 8}, "of a loader with seed 7, but this one has 8"),
        ({"shuffle": False}, "of a loader with shuffle True, but this one has False"),
        ({"drop_last": True}, "of a loader with drop_last False, but this one has True"),
    ],
)
def test_a_state_of_another_loader_is_refused_by_name_and_changes_nothing(
    change: dict[str, object], message: str
) -> None:
    state, other = loader().state_dict(), loader(**change)
    take(other, 1, 1)
    before = other.state_dict()
    with pytest.raises(UsageError, match=message):
        other.load_state_dict(state)
    assert other.state_dict() == before


def test_a_state_of_other_data_is_refused() -> None:
    longer = TensorLoader(torch.zeros(24), torch.zeros(24), BATCH_SIZE, shuffle=True, seed=7)
    with pytest.raises(UsageError, match="with samples 23, but this one has 24"):
        longer.load_state_dict(loader().state_dict())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch": 7}, "stands after batch 7, but an epoch has 6"),
        ({"batch": -1}, "has batch -1; give what state_dict"),
        ({"epoch": "3"}, "has epoch '3'"),
        ({"epoch": None}, "has epoch None"),
    ],
)
def test_what_is_no_state_is_refused(change: dict[str, object], message: str) -> None:
    one = loader()
    with pytest.raises(UsageError, match=message):
        one.load_state_dict(one.state_dict() | change)


def test_a_transform_is_random_by_seed_epoch_and_batch_alone() -> None:
    one = loader()
    first, second = list(one), list(one)
    torch.manual_seed(99)
    again = loader()
    again.epoch = 1
    assert equal(list(again), second)
    still = TensorLoader(torch.zeros(24), torch.zeros(24), BATCH_SIZE, transform=noisy)
    noise = [tuple(x.tolist()) for _ in range(2) for x, _ in still]
    assert len(set(noise)) == len(noise) == 12
    assert not equal(list(loader(seed=8)), first)


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (lambda x, _: x[:2], r"transform made \(2,\) of a batch of shape \(4,\); it has to keep the samples"),
        (lambda x, _: (x, x), "transform made tuple of a batch"),
        ("flip", "transform is 'flip'; give a function"),
    ],
)
def test_a_transform_that_is_none_is_refused(transform: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(loader(transform=transform))


def test_a_batch_that_is_kept_keeps_no_more_than_a_chunk_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaders, "CHUNK_BYTES", 8 * 100)
    x, y = next(iter(TensorLoader(torch.zeros(1000), torch.zeros(1000), batch_size=10, shuffle=True)))
    assert x.untyped_storage().nbytes() == y.untyped_storage().nbytes() == 400


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64, torch.bfloat16])
def test_batches_keep_dtype_and_device(dtype: torch.dtype) -> None:
    x = torch.zeros(5, 2, dtype=dtype)
    for shuffle in (True, False):
        assert all(
            (x.dtype, x.device.type, y.dtype) == (dtype, "cpu", torch.int32)
            for x, y in TensorLoader(x, torch.zeros(5, dtype=torch.int32), 2, shuffle=shuffle)
        )


def test_the_order_of_a_seed_never_changes() -> None:
    """Accuracies in the log stay reproducible: the order as it was on 2026-11-23, torch 2.13."""
    one = TensorLoader(torch.arange(8), torch.arange(8), batch_size=8, shuffle=True, seed=3)
    assert [next(iter(one))[0].tolist() for _ in range(2)] == [
        [6, 3, 7, 2, 0, 1, 5, 4],
        [0, 5, 1, 7, 3, 2, 4, 6],
    ]
