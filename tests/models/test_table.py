from __future__ import annotations

import json
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from actograph.errors import UsageError
from actograph.models import LayerTable, layer_table, simple_cnn


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.out = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        attended: Tensor = self.out(F.scaled_dot_product_attention(q, k, v))
        return attended


class Branchy(nn.Module):
    """Looks at values, so that only real memory can run it; changes buffers and random state in forward."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)
        self.layer = nn.Linear(4, 4)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))
        self.lock: object = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls = self.calls + 1
        self.norm.running_mean.add_(1)  # type: ignore[union-attr]
        if x.sum() + torch.rand(1) < -1e9:
            return x
        y: Tensor = self.layer(self.norm(x))
        return y


def names(table: LayerTable) -> list[str]:
    return [row.name for row in table.rows]


def test_rows_are_leaf_calls_in_order_with_real_shapes() -> None:
    table = layer_table(simple_cnn(10), (1, 28, 28))
    assert names(table)[:3] == ["block1.conv", "block1.act", "block2.conv"]
    assert [row.grid for row in table.rows if row.kind == "Conv2d"] == [(n, n) for n in (14, 7, 4, 2, 1)]
    assert table.rows[-1].output_shape == (1, 10)
    assert all(row.grid_matches for row in table.rows if row.kind in ("Conv2d", "AdaptiveAvgPool2d"))
    assert table.device == "meta"


def test_totals_equal_torchs_own() -> None:
    model = simple_cnn(10, norm="batch")
    table = layer_table(model, (1, 32, 32))
    assert table.parameters == sum(p.numel() for p in model.parameters())
    assert sum(row.parameters for row in table.rows) == table.parameters
    assert table.unused == ()


def test_the_second_call_of_a_module_has_an_index_and_counts_no_parameters_again() -> None:
    linear = nn.Linear(4, 4)
    table = layer_table(nn.Sequential(linear, nn.ReLU(), linear), (4,))
    assert [(row.name, row.parameters, row.macs) for row in table.rows] == [
        ("0", 20, 16),
        ("1", 0, 0),
        ("0[1]", 0, 16),
    ]


def test_tied_weights_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False))
    model[1].weight = model[0].weight
    table = layer_table(model, (4,))
    assert [row.parameters for row in table.rows] == [16, 0]
    assert table.parameters == 16


def test_work_outside_of_layers_gets_a_row_under_its_container() -> None:
    table = layer_table(nn.Sequential(Attention()), (6, 8))
    own = table.rows[0]
    assert names(table) == ["0", "0.qkv", "0.out"]
    assert own.is_own_work
    assert own.macs == 2 * 6 * 6 * 8  # scores and their product with v
    assert own.activation_bytes == 0  # its output is that of 0.out


def test_parameters_that_a_container_holds_itself_or_in_a_list_are_in_its_row() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(4))
            self.shifts = nn.ParameterList([nn.Parameter(torch.zeros(4))])
            self.linear = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.linear(x * self.scale + self.shifts[0])
            return y

    table = layer_table(Scaled(), (4,))
    assert [(row.name, row.parameters) for row in table.rows] == [("(model)", 8), ("linear", 20)]


def test_modules_that_the_input_never_reaches_are_named() -> None:
    model = Attention()
    model.auxiliary = nn.Linear(8, 3)
    table = layer_table(model, (6, 8))
    assert table.unused == ("auxiliary",)
    assert table.unused_parameters == 27
    assert "27 parameters are in modules that this input never called: auxiliary." in table.sentences


def test_activation_bytes_count_new_memory_only() -> None:
    model = nn.Sequential(
        nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Dropout(), nn.Unflatten(1, (2, 3)), nn.GELU()
    )
    assert [row.activation_bytes for row in layer_table(model, (4,)).rows] == [24, 0, 0, 0, 24]


def test_activation_bytes_follow_the_model_dtype() -> None:
    assert layer_table(nn.Linear(4, 6).half(), (4,)).activation_bytes == 12


def test_a_weight_with_a_parametrization_is_one_layer() -> None:
    conv = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 2, 3))
    table = layer_table(conv, (1, 5, 5))
    assert [(row.parameters, row.macs, row.grid) for row in table.rows] == [(2 + 18 + 2, 9 * 9 * 2, (3, 3))]


def test_token_ids_are_given_as_a_tensor() -> None:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    table = layer_table(model, (torch.tensor([[1, 2, 3]]),))
    assert [row.output_shape for row in table.rows] == [(1, 3, 4), (1, 3, 2)]
    assert table.rows[0].input_shape == (1, 3)


def test_a_subclass_with_a_forward_of_its_own_is_caught_by_the_grid_check() -> None:
    class Cropped(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input)[..., 1:, 1:]

    table = layer_table(Cropped(1, 2, 3), (1, 8, 8))
    assert table.rows[0].grid_matches is False
    assert "where its settings promise" in table.verdict


@pytest.mark.parametrize("can_be_copied", [True, False])
def test_the_model_is_left_as_it_was(can_be_copied: bool) -> None:
    model = Branchy()
    model.norm.eval()
    if not can_be_copied:
        model.lock = threading.Lock()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    buffers = {name: id(buffer) for name, buffer in model.named_buffers()}
    random_state = torch.get_rng_state()
    table = layer_table(model, (torch.rand(3, 4, generator=torch.Generator().manual_seed(1)),))
    assert table.device == "cpu"
    assert names(table) == ["norm", "layer"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert {name: id(buffer) for name, buffer in model.named_buffers()} == buffers
    assert (model.training, model.norm.training, model.layer.training) == (True, False, True)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("model", [simple_cnn(10), Branchy()], ids=["meta", "memory"])
def test_forward_hooks_of_the_user_do_not_see_the_run(model: nn.Module) -> None:
    seen: list[object] = []
    for module in model.modules():
        module.register_forward_hook(lambda *_: seen.append(1))
    layer_table(model, (1, 28, 28) if isinstance(model, nn.Sequential) else (4,))
    assert seen == []


def test_the_given_tensors_are_left_as_they_were() -> None:
    x = torch.full((2, 4), -1.0)
    model = Branchy()
    model.layer = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 4))  # type: ignore[assignment]
    model.norm = nn.Identity()  # type: ignore[assignment]
    model.norm.running_mean = torch.zeros(4)
    assert layer_table(model, (x,)).device == "cpu"
    assert bool((x == -1).all())


def test_a_run_on_real_memory_says_why() -> None:
    table = layer_table(Branchy(), (4,))
    assert table.sentences[-1].startswith(
        "The model was run on cpu, because a copy on the meta device could not be run ("
    )


def test_a_lazy_model_is_measured_and_stays_lazy() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU())
    table = layer_table(model, (2, 6, 6))
    assert table.parameters == 4 * 2 * 9 + 4
    assert isinstance(model[0], nn.LazyConv2d)


def test_an_input_that_does_not_fit_is_one_clear_line() -> None:
    with pytest.raises(
        UsageError, match=r"Linear cannot be run on an input of shape \(1, 5\).*RuntimeError"
    ) as caught:
        layer_table(nn.Linear(4, 2), (5,))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [(), (1, 0, 28), (1, "28"), (True, 4), (torch.ones(1), 3)])
def test_an_input_size_that_is_no_shape_is_refused(size: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="give the shape of one sample without the batch axis"):
        layer_table(nn.Linear(4, 2), size)


def test_what_is_no_module_is_refused() -> None:
    with pytest.raises(UsageError, match="model is a str"):
        layer_table("simple_cnn", (1, 28, 28))  # type: ignore[arg-type]


def test_a_printed_table_has_a_line_for_each_layer_and_all_sentences() -> None:
    table = layer_table(simple_cnn(10), (1, 28, 28))
    title, _, head, *lines = str(table).splitlines()
    assert title == "Network on 1×28×28, per sample"
    assert " ".join(head.split()) == "Layer Class Output Grid Kernel In:out Parameters MACs Memory"
    end = lines.index("")
    for row, line in zip(table.rows, lines, strict=False):
        assert line.split()[:2] == [row.name, row.kind]
    first = "block1.conv Conv2d 8×14×14 28 → 14 ✓ 5 / 2 25:8 208 39,200 6.1 KiB"
    assert " ".join(lines[0].split()) == first
    assert lines[end - 1].split() == ["total", "30,282", "248,864", "24.5", "KiB"]
    assert lines[0].index("39,200") + len("39,200") == head.index("MACs") + len("MACs")
    assert " ".join(" ".join(lines[end + 1 :]).split()) == " ".join(f"- {one}" for one in table.sentences)
    assert max(len(line) for line in lines[end + 1 :]) <= 100


def test_the_table_is_plain_data_for_json() -> None:
    table = layer_table(simple_cnn(10), (1, 28, 28))
    data = json.loads(json.dumps(table.as_dict()))
    assert data["macs"] == table.macs == 248_864
    assert data["rows"][0]["grid_matches"] is True
    assert data["rows"][0]["window"] == {"kernel": [5, 5], "stride": [2, 2], "inputs": 25, "filters": 8}
