from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from actograph.hooks.hiding import hidden
from actograph.hooks.layer_hooks import LayerHooks
from actograph.sketch.block import Block


def hooks_of(model: nn.Module) -> list[list[object]]:
    return [[*part._forward_pre_hooks.values(), *part._forward_hooks.values()] for part in model.modules()]


def test_hooks_of_others_stay_and_ours_come_back_to_their_places() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.GELU())

    def theirs(*_: object) -> None:
        pass

    with LayerHooks(model, Block(), lambda layer: None, lambda model: True):
        model[1].register_forward_hook(theirs)
        before = hooks_of(model)
        with hidden(model):
            assert hooks_of(model) == [[], [], [theirs]]
        assert hooks_of(model) == before
        assert [len(hooks) for hooks in before] == [2, 1, 3]


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_model_with_hooks_and_a_copy_of_it_can_be_scripted() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.GELU())
    x = torch.ones(3, 2)
    with LayerHooks(model, Block(), lambda layer: None, lambda model: True):
        for one in (model, copy.deepcopy(model)):
            with hidden(one):
                scripted = torch.jit.script(one)
            torch.testing.assert_close(scripted(x), model(x), rtol=0, atol=0)
