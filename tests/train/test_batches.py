from __future__ import annotations

from collections import namedtuple
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from actograph.errors import UsageError
from actograph.train.batches import batches, length, num_train_batches
from actograph.train.device import device_of, move
from actograph.train.state import Phase, Progress

CPU = torch.device("cpu")
META = torch.device("meta")
Item = (torch.zeros(2), torch.zeros(2))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        yield from [Item] * 3


class Misjudged:
    """Gives five batches and says ``num``."""

    def __init__(self, num: int) -> None:
        self.num = num

    def __len__(self) -> int:
        return self.num

    def __iter__(self) -> Iterator[Any]:
        yield from [Item] * 5


def read(loader: Iterable[Any], limit: int | None = None, num_batches: int | None = None) -> int:
    progress = Progress(num_epochs=1)
    progress.start_phase(Phase.TRAIN, num_batches)
    return len(list(batches(loader, CPU, progress, limit)))


def test_the_length_of_a_loader_may_be_unknown() -> None:
    assert length([Item, Item]) == 2
    assert length(iter([Item])) is None
    assert length(DataLoader(Stream(), batch_size=1)) is None
    assert length(DataLoader(TensorDataset(torch.zeros(5)), batch_size=2)) == 3


@pytest.mark.parametrize(
    ("loader", "steps", "words"),
    [
        ([], None, "train loader is empty"),
        (iter([Item]), None, "has no length"),
        ([Item, Item], 3, "at most 2, the batches of the train loader, not 3"),
        (iter([Item]), 0, "steps must be at least 1, not 0"),
    ],
)
def test_a_number_of_batches_that_makes_no_sense_is_refused(
    loader: Any, steps: int | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        num_train_batches(loader, steps)


def test_steps_or_the_length_make_an_epoch() -> None:
    assert num_train_batches([Item, Item], None) == 2
    assert num_train_batches([Item, Item], 1) == 1
    assert num_train_batches(iter([Item]), 100) == 100


def test_a_generator_is_read_no_further_than_the_limit() -> None:
    stream = iter([Item] * 5)
    assert read(stream, limit=2, num_batches=2) == 2
    assert len(list(stream)) == 3


@pytest.mark.parametrize("num", [3, 7])
def test_a_loader_that_misjudges_its_length_is_read_to_its_end_with_a_warning(num: int) -> None:
    with pytest.warns(UserWarning, match=f"gave 5 batches, not {num} as announced"):
        assert read(Misjudged(num), num_batches=num) == 5


def test_a_loader_that_gives_nothing_is_an_error() -> None:
    with pytest.raises(UsageError, match="train loader gave no batch in epoch 0"):
        read(iter([]))


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (torch.zeros(2, 3), r"float32 \(2, 3\)"),
        ((torch.zeros(2), torch.zeros(2), torch.zeros(2)), "3 things"),
        ((torch.zeros(2),), "1 things"),
        ({"x": torch.zeros(2), "y": 1}, r"\{x: float32 \(2,\), y: int\}"),
    ],
)
def test_a_batch_that_is_no_pair_is_refused_with_what_it_is(item: Any, words: str) -> None:
    with pytest.raises(UsageError, match=rf"pairs \(x, y\), but gave {words}"):
        read([item])


def test_nested_batches_are_moved_and_keep_their_form() -> None:
    point = namedtuple("point", "left right")
    value = {"a": (torch.zeros(1), "text"), "b": [point(torch.zeros(2), 3)]}
    moved = move(value, META)
    assert moved["a"][0].device == META
    assert moved["a"][1] == "text"
    assert type(moved["b"][0]) is point
    assert moved["b"][0].left.device == META


def test_a_model_without_parameters_is_on_the_cpu() -> None:
    assert device_of(torch.nn.ReLU()) == CPU
    assert device_of(torch.nn.Linear(1, 1, device="meta")) == META
