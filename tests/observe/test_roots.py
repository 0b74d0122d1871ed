from __future__ import annotations

import gc

import torch
from torch import nn
from torch.nn.utils.parametrize import ParametrizationList

from actograph.observe.roots import Roots, is_being_made


def block() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.ReLU())


def test_a_model_is_taken_once_and_its_parts_are_settled() -> None:
    roots, model = Roots(), nn.Sequential(block(), nn.Linear(2, 1))
    assert roots.take(model) == [model]
    assert all(roots.is_settled(part) for part in model.modules())
    assert not roots.is_settled(block())


def test_a_model_whose_parts_are_known_gives_the_others() -> None:
    roots = Roots()
    encoder, head = block(), block()
    model = nn.ModuleDict({"encoder": encoder, "body": nn.Sequential(head, nn.Linear(2, 2))})
    assert roots.take(encoder) == [encoder]
    assert roots.take(head[0]) == [head[0]]
    assert roots.take(model) == [head[1], model["body"][1]]  # type: ignore[index]
    assert roots.is_settled(model)


def test_a_frozen_module_is_taken_when_it_was_thawed() -> None:
    roots, model = Roots(), block().requires_grad_(False)
    assert roots.take(model) == []
    assert roots.is_settled(model)
    model.requires_grad_()
    roots.look_again()
    assert not roots.is_settled(model)
    assert roots.take(model) == [model]


def test_a_part_that_is_thawed_later_is_not_taken_twice() -> None:
    roots, frozen = Roots(), block().requires_grad_(False)
    model = nn.Sequential(frozen, nn.Linear(2, 1))
    assert roots.take(frozen) == []
    assert roots.take(model) == [model]
    roots.look_again()
    frozen.requires_grad_()
    assert roots.take(frozen) == []


def test_modules_are_not_kept_alive_and_a_new_one_is_not_taken_for_an_old() -> None:
    roots = Roots()
    for _ in range(5):
        loss = nn.MSELoss()
        assert roots.take(loss) == []
        model = block()
        assert not roots.is_settled(model)
        assert roots.take(model) == [model]
        del loss, model
    gc.collect()
    assert not roots._seen
    assert not roots._recorded
    assert not roots._frozen


def test_what_cannot_be_recorded_is_said_with_its_reason() -> None:
    roots = Roots()
    traced = torch.fx.symbolic_trace(block())
    assert roots.take(traced) == []
    several = nn.DataParallel(block())
    several.device_ids = [0, 1]  # with fewer it makes no copies
    assert roots.take(several) == []
    assert [line.split(":")[0] for line in roots.unseen] == [
        "Sequential is not recorded",
        "DataParallel is not recorded",
    ]
    assert all(roots.is_settled(part) for part in traced.modules())


def test_a_data_parallel_that_makes_no_copies_is_the_model_inside() -> None:
    inside = block()
    roots = Roots()
    assert roots.take(nn.DataParallel(inside)) == [inside]
    assert roots.unseen == []


def test_a_part_that_is_called_to_compute_a_weight_is_no_model() -> None:
    weights = torch.nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))
    roots = Roots()
    (part,) = (one for one in weights.modules() if isinstance(one, ParametrizationList))
    assert roots.take(part) == []
    model = nn.Sequential(weights, nn.ReLU())
    assert roots.take(model) == [model]


def test_a_constructor_that_calls_a_part_is_seen_from_inside() -> None:
    class Sized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.found = is_being_made()

        def forward(self) -> bool:
            return is_being_made()

    sized = Sized()
    assert (sized.found, sized(), is_being_made()) == (True, False, False)
