"""Count multiply-accumulates: torch's own flop counter, completed where it counts nothing.

No idea of names and tables. Only products that are summed count (convolutions, linear layers, matrix
products, attention); normalisation, activations, additions and embeddings count as none.
"""

from __future__ import annotations

from math import prod
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from actograph.models.shapes import Shape

aten = torch.ops.aten

FLOPS_PER_MAC = 2  # torch counts the multiplication and the addition
GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
CELL_GATES: dict[type[nn.RNNCellBase], int] = {nn.LSTMCell: 4, nn.GRUCell: 3, nn.RNNCell: 1}


def flop_counter() -> FlopCounterMode:
    """Return torch's counter with the operations added that torch 2.13 counts as 0 (measured)."""
    return FlopCounterMode(
        display=False,
        custom_mapping={
            aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
            aten.mv: _mv_flops,
            aten.addmv: _addmv_flops,
            aten.dot: _dot_flops,
            aten._trilinear: _trilinear_flops,
        },
    )


def macs_so_far(counter: FlopCounterMode) -> int:
    """Read the counter in multiply-accumulates."""
    return counter.get_total_flops() // FLOPS_PER_MAC


def recurrent_macs(module: nn.Module, positions: int) -> int | None:
    """Return a recurrent layer's multiply-accumulates over ``positions`` (time steps x batch); else None.

    By formula, because fused kernels (oneDNN, cuDNN) hide theirs from the counter. Per position, layer and
    direction: gates x hidden x (inputs + outputs fed back), and for a projected LSTM hidden x projection.
    """
    if isinstance(module, nn.RNNBase):
        return positions * sum(_recurrent_layer_macs(module, layer) for layer in range(module.num_layers))
    if isinstance(module, nn.RNNCellBase):
        gates = next(gates for kind, gates in CELL_GATES.items() if isinstance(module, kind))
        return positions * gates * module.hidden_size * (module.input_size + module.hidden_size)
    return None


def _recurrent_layer_macs(module: nn.RNNBase, layer: int) -> int:
    directions = 2 if module.bidirectional else 1
    outputs = module.proj_size or module.hidden_size
    inputs = module.input_size if layer == 0 else directions * outputs
    gates = GATES[module.mode] * module.hidden_size * (inputs + outputs)
    return directions * (gates + module.hidden_size * module.proj_size)


def _attention_flops(query: Shape, key: Shape, value: Shape, *_: Any, **__: Any) -> int:
    """Count query x key, then scores x value; a causal mask is not taken into account, as in torch."""
    scores = prod(query[:-1]) * key[-2]
    return FLOPS_PER_MAC * scores * (query[-1] + value[-1])


def _mv_flops(matrix: Shape, _vector: Shape, *_: Any, **__: Any) -> int:
    return FLOPS_PER_MAC * prod(matrix)


def _addmv_flops(_bias: Shape, matrix: Shape, _vector: Shape, *_: Any, **__: Any) -> int:
    return FLOPS_PER_MAC * prod(matrix)


def _dot_flops(vector: Shape, _other: Shape, *_: Any, **__: Any) -> int:
    return FLOPS_PER_MAC * prod(vector)


def _trilinear_flops(left: Shape, weight: Shape, right: Shape, *_: Any, **__: Any) -> int:
    """Count nn.Bilinear as left x weight, (batch, in1) with (out, in1, in2), then times right."""
    batch, outputs, in1, in2 = left[0], weight[-3], weight[-2], weight[-1]
    return FLOPS_PER_MAC * batch * outputs * (in1 * in2 + in2)
