from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from actograph.models import layer_table, simple_cnn


class Functional(nn.Module):
    """Products outside of any layer: what torch counts, and where it has to be attributed."""

    def forward(self, x: Tensor) -> Tensor:  # (batch, heads, time, features)
        attended = F.scaled_dot_product_attention(x, x, x)
        scores = torch.einsum("bhtd,bhsd->bhts", x, attended)
        return torch.bmm(scores.flatten(0, 1), x.flatten(0, 1)) @ torch.ones(x.shape[-1], 3, device=x.device)


def meta_macs(model: nn.Module, inputs: Sequence[Tensor]) -> int:
    """Count on meta with torch's own counter, untouched."""
    counter = FlopCounterMode(display=False)
    model = model.to("meta").eval()
    with torch.no_grad(), counter:
        model(*(x.to("meta") for x in inputs))
    return int(counter.get_total_flops()) // 2


image = torch.rand(2, 4, 9, 9)
words = torch.rand(2, 6, 16)
CASES: list[tuple[nn.Module, tuple[Tensor, ...]]] = [
    (simple_cnn(10, in_channels=4), (image,)),
    (nn.Conv1d(4, 6, 3), (image[..., 0],)),
    (nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), (image,)),
    (nn.Conv2d(4, 8, 3, groups=4), (image,)),
    (nn.Conv2d(4, 6, 3, dilation=2), (image,)),
    (nn.Conv3d(2, 3, 2), (torch.rand(1, 2, 4, 5, 6),)),
    (nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (image,)),
    (nn.Linear(16, 5), (words,)),
    (nn.Linear(16, 5, bias=False), (words[0, 0],)),
    (nn.MultiheadAttention(16, 4, batch_first=True), (words, words, words)),
    (nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (words,)),
    (nn.TransformerDecoderLayer(16, 4, 32, batch_first=True), (words, words)),
    (Functional(), (torch.rand(2, 3, 5, 4),)),
    (nn.LSTM(16, 7, num_layers=2, bidirectional=True), (words,)),
    (nn.LSTM(16, 7, num_layers=2, proj_size=3), (words,)),
    (nn.GRU(16, 7, batch_first=True), (words,)),
    (nn.RNN(16, 7, bidirectional=True), (words,)),
    (nn.LSTMCell(16, 7), (words[0],)),
    (nn.GRUCell(16, 7), (words[0],)),
    (nn.RNNCell(16, 7), (words[0],)),
]


@pytest.mark.parametrize(("model", "inputs"), CASES, ids=lambda case: type(case).__name__)
def test_multiply_accumulates_equal_half_of_torchs_flops(
    model: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    macs = layer_table(model, inputs).macs
    assert macs == meta_macs(model, inputs) > 0


class LooksAtValues(nn.Module):
    """A wrapper that the meta device cannot run."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Tensor) -> object:
        return self.inner(*inputs) if inputs[0].sum() > -1e9 else None


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize(("model", "inputs"), CASES, ids=lambda case: type(case).__name__)
def test_a_run_on_real_memory_counts_the_same_as_one_on_meta(
    model: nn.Module, inputs: tuple[Tensor, ...]
) -> None:
    real = model.to_empty(device="cpu") if next(model.parameters(), image).is_meta else model
    table = layer_table(LooksAtValues(real), inputs)
    assert table.device == "cpu"
    assert table.macs == meta_macs(real, inputs)


@pytest.mark.parametrize(
    ("model", "inputs", "macs"),
    [
        (nn.Conv2d(1, 8, 5, stride=2, padding=2), (torch.rand(1, 1, 28, 28),), 14 * 14 * 25 * 8),
        (nn.Linear(784, 10), (torch.rand(3, 784),), 3 * 784 * 10),
        (nn.LSTM(5, 7), (torch.rand(11, 2, 5),), 11 * 2 * 4 * 7 * (5 + 7)),
        (nn.GRU(5, 7), (torch.rand(11, 5),), 11 * 3 * 7 * (5 + 7)),
        (nn.Bilinear(3, 4, 5), (torch.rand(2, 3), torch.rand(2, 4)), 2 * 5 * (3 * 4 + 4)),
        (nn.BatchNorm2d(4), (image,), 0),
        (nn.Embedding(9, 4), (torch.tensor([[1, 2]]),), 0),
    ],
    ids=lambda case: type(case).__name__ if isinstance(case, nn.Module) else "",
)
def test_multiply_accumulates_equal_those_counted_by_hand(
    model: nn.Module, inputs: tuple[Tensor, ...], macs: int
) -> None:
    assert layer_table(model, inputs).macs == macs


def test_a_packed_sequence_counts_its_real_time_steps_only() -> None:
    class Packs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(5, 7)

        def forward(self, x: Tensor) -> object:
            return self.lstm(nn.utils.rnn.pack_padded_sequence(x, torch.tensor([4, 2])))

    assert layer_table(Packs(), (torch.rand(4, 2, 5),)).macs == (4 + 2) * 4 * 7 * (5 + 7)


def test_matrix_times_vector_counts_although_torch_counts_nothing() -> None:
    class Products(nn.Module):
        def forward(self, matrix: Tensor, vector: Tensor) -> Tensor:
            product = matrix @ vector
            return torch.addmv(product, matrix, vector) + torch.dot(vector, vector)

    assert layer_table(Products(), (torch.rand(3, 5), torch.rand(5))).macs == 15 + 15 + 5
