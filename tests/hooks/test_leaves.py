from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from actograph.errors import UsageError
from actograph.hooks.leaves import leaf_modules, own_parameters, scripted_modules, tensors_of


def nested() -> nn.Module:
    return nn.Sequential(
        nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
        nn.MultiheadAttention(2, 1),
        parametrizations.weight_norm(nn.Linear(2, 2)),
    )


def test_leaves_are_modules_without_children() -> None:
    assert list(leaf_modules(nested())) == ["0.0", "0.1", "1", "2"]


def test_a_module_that_keeps_its_parameters_in_a_list_or_dictionary_is_a_leaf() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weights = nn.ParameterList([torch.ones(2, 2), torch.ones(2, 2)])
            self.biases = nn.ParameterDict({"first": torch.ones(2)})
            self.scale = nn.Parameter(torch.ones(1))

    model = nn.Sequential(Experts(), nn.ReLU())
    assert list(leaf_modules(model)) == ["0", "1"]
    assert sum(p.numel() for p in own_parameters(model[0])) == 4 + 4 + 2 + 1


def test_a_model_that_is_a_leaf_is_called_model() -> None:
    assert list(leaf_modules(nn.Linear(2, 2))) == ["model"]


def test_a_shared_module_is_hooked_once() -> None:
    act = nn.ReLU()
    assert list(leaf_modules(nn.Sequential(nn.Linear(2, 2), act, nn.Linear(2, 2), act))) == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("select", "names"),
    [
        ("0.*", ["0.0", "0.1"]),
        (nn.Linear, ["0.0", "2"]),
        (lambda name, module: name.endswith("1"), ["0.1", "1"]),
        ([nn.ReLU, "2"], ["0.1", "2"]),
    ],
)
def test_layers_are_selected_by_pattern_class_or_predicate(select: object, names: list[str]) -> None:
    assert list(leaf_modules(nested(), select)) == names  # type: ignore[arg-type]


def test_a_selection_of_nothing_names_the_layers() -> None:
    with pytest.raises(UsageError, match=r"'conv\*' matches no layer; the layers are 0.0, 0.1"):
        leaf_modules(nested(), "conv*")


def test_nested_outputs_are_flattened_to_named_tensors() -> None:
    @dataclass
    class Output:
        logits: torch.Tensor
        hidden: tuple[torch.Tensor, ...]

    one = torch.ones(1)
    output = {"out": Output(one, (one, one)), "none": None, "list": [one, 3]}
    assert [path for path, _ in tensors_of(output)] == [
        "out.logits",
        "out.hidden.0",
        "out.hidden.1",
        "list.0",
    ]


def test_a_linear_layer_with_children_is_a_leaf_beside_them() -> None:
    class LowRank(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.down, self.up = nn.Linear(4, 1), nn.Linear(1, 4)

    assert list(leaf_modules(nn.Sequential(LowRank(), nn.ReLU()))) == ["0", "0.down", "0.up", "1"]


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_what_torchscript_has_compiled_is_no_leaf_and_is_named() -> None:
    part = torch.jit.script(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    model = nn.Sequential(nn.Linear(2, 2), part, nn.Linear(2, 2))
    assert list(leaf_modules(model)) == ["0", "2"]
    assert scripted_modules(model) == ["1"]
