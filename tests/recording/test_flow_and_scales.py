"""Facts of the graph between weight layers and of the size of weights and gradients."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from actograph.recording.recording import Recording
from actograph.runlog.facts import FactKind
from actograph.runlog.flow import OUTPUT, Flow, Kind
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
from actograph.runlog.view import RunView


def recorded(
    model: nn.Module, x: Tensor, steps: int = 1, loss_of: Any = lambda y: y.square().mean()
) -> RunView:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with Recording(RunWriter(None, RunInfo("run")), budget=None) as recording:
        recording.attach(model)
        recording.optimizer(optimizer)
        for _ in range(steps):
            loss_of(model(x)).backward()
            optimizer.step()
            optimizer.zero_grad()
    return recording.view()


class Block(nn.Module):
    """A transformer block: norm first, attention, two layers, shortcuts."""

    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, dim=-1)
        x = x + self.proj(functional.scaled_dot_product_attention(q, k, v))
        down: Tensor = self.down(functional.gelu(self.up(self.norm2(x))))
        return x + down


def test_flow_of_a_convolution_network_names_what_lies_between_its_layers() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(16, 3),
    )  # fmt: skip
    flow = Flow.of(recorded(model, torch.randn(5, 1, 8, 8)).facts)
    first, second, head = flow.layers
    assert [layer.name for layer in flow.layers] == ["0", "3", "6"]
    assert (first.op, head.op) == ("convolution", "linear")
    assert first.from_input == frozenset()
    assert first.is_normalized
    assert second.sources == {"0": {Kind.NORM, Kind.ACTIVATION}}
    assert head.sources == {"3": {Kind.MAX_POOL, Kind.LINEAR}}
    assert flow.heads == (head,)
    assert flow.consumers("6") == {OUTPUT: frozenset()}
    assert flow.chain_to("6") == ["0", "3", "6"]


def test_flow_sees_shortcuts_and_attention() -> None:
    model = nn.Sequential(nn.Linear(5, 8), Block(), nn.Linear(8, 2))
    flow = Flow.of(recorded(model, torch.randn(3, 4, 5)).facts)
    by_name = {layer.name: layer for layer in flow.layers}
    assert by_name["1.proj"].sources["1.qkv"] >= {Kind.PRODUCT}
    assert by_name["1.proj"].after == {Kind.MERGE}
    assert by_name["0"].after == {Kind.MERGE, Kind.NORM}
    assert set(by_name["2"].sources) == {"0", "1.proj", "1.down"}
    assert all(Kind.MERGE in kinds for kinds in by_name["2"].sources.values())
    assert by_name["1.down"].sources["1.up"] == {Kind.ACTIVATION, Kind.LINEAR}


@pytest.mark.parametrize(
    ("between", "kind"),
    [
        (lambda h: h * torch.sigmoid(h), Kind.PRODUCT),
        (lambda h: h.softmax(-1), Kind.SOFTMAX),
        (torch.tanh, Kind.SATURATING),
        (lambda h: torch.fft.rfft(h).abs()[..., :4].repeat(1, 2), Kind.UNKNOWN),
    ],
)
def test_functions_are_seen_like_modules(between: Any, kind: Kind) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.head = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Any:
            return self.head(between(self.fc(x)))

    flow = Flow.of(recorded(Model(), torch.randn(3, 4)).facts)
    assert kind in flow.layers[1].sources["fc"]


def test_flow_of_recurrent_and_parametrized_layers_has_their_names() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.rnn = nn.Embedding(7, 4), nn.LSTM(4, 6, batch_first=True)
            self.head = nn.utils.parametrizations.weight_norm(nn.Linear(6, 2))

        def forward(self, x: Tensor) -> Any:
            return self.head(self.rnn(self.tokens(x))[0][:, -1])

    flow = Flow.of(recorded(Model(), torch.randint(7, (3, 5))).facts)
    assert [(layer.name, layer.op) for layer in flow.layers] == [
        ("tokens", "embedding"), ("rnn", "recurrent"), ("head", "linear"),
    ]  # fmt: skip


def test_scales_are_those_of_numpy() -> None:
    torch.manual_seed(0)
    first = nn.Linear(6, 5)
    model = nn.Sequential(first, nn.ReLU(), nn.Conv1d(1, 2, 3))
    start = first.weight.detach().double().numpy().copy()
    bias = first.bias.detach().abs().max().item()
    x = torch.randn(4, 1, 6)
    model(x).square().mean().backward()
    assert first.weight.grad is not None
    expected = first.weight.grad.double().numpy().copy()
    model.zero_grad()
    view = recorded(model, x, steps=6)
    fact = next(fact for fact in view.facts.of(FactKind.SCALE) if fact.subject == "0.weight")
    assert fact.number("rms") == pytest.approx(math.sqrt(np.square(start).mean()), rel=1e-6)
    assert fact.number("bias_max") == pytest.approx(bias)
    assert fact.number("fan_in") == 6
    assert fact.data["steps"] == [0.0, 1.0, 2.0, 4.0]
    rms, zeros, largest = (fact.data[name] for name in ("grad_rms", "grad_zeros", "grad_max"))
    assert isinstance(rms, list)
    assert isinstance(zeros, list)
    assert isinstance(largest, list)
    assert rms[0] == pytest.approx(math.sqrt(np.square(expected).mean()), rel=1e-5)
    assert zeros[0] == pytest.approx((expected == 0).mean())
    assert largest[0] == pytest.approx(np.abs(expected).max())


def test_a_graph_is_looked_at_once_and_is_let_go() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    view = recorded(model, torch.randn(2, 4), steps=5)
    looked = view.facts.looked(FactKind.FLOW)
    assert looked is not None
    assert (looked.first_step, looked.num_steps) == (0, 1)
