"""`WeightSample`: a few values of an optimizer's weights and gradients around its updates: their sizes and directions.

No idea of runs, of steps to record or of what the numbers mean. Nothing waits for a device.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from actograph.hooks.parameter_norms import has_values
from actograph.hooks.shards import local_part
from actograph.layout.row import Floats
from actograph.sketch.observe import is_measurable

MAX_WEIGHTS = 12  # parameters of an optimizer that are sampled, spread over its order, the first and the last among them
WIDTH = 512  # values of each: a norm of so many is off by 3 %, a cosine of them all by 1 %
NUM_PLANES = 2  # of values: the weights before the update, and the update

Flags: TypeAlias = NDArray[np.bool_]
Values: TypeAlias = Tensor | NDArray[np.float32]  # on the CPU numpy's, which copies so few five times as fast


class Moment(NamedTuple):
    """What belongs to an update's inner products."""

    num_weights: int
    num_values: int
    turn: int  # which of two planes has this update's gradients
    is_next: bool  # whether the other one is that of the update right before


class UpdateNumbers(NamedTuple):
    """Numbers of each of n updates (n,), NaN where one is not defined."""

    update_ratio: Floats  # median over the weights of the norm of the update / the norm of the weight
    largest_update_ratio: Floats
    weight_rms: Floats  # over all sampled values
    update_rms: Floats
    grad_cosine: Floats  # between the gradient and that of the update before


class WeightSample:
    """Sampled values of parameters that stay where they are in memory. Use `draw_sample` to make one."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = parameters
        self._is_shared_out = any(local_part(parameter) is not parameter for parameter in parameters)
        weights = [local_part(parameter).detach() for parameter in parameters]
        self._sizes = [min(weight.numel(), WIDTH) for weight in weights]
        self._views = [_spread(weight) if _shares_memory(weight) else None for weight in weights]
        self._places = self._now_at()
        device = weights[0].device
        # zeros stay behind what a small weight fills; the gradients of this update and of the one before, in turn
        self._gradients = torch.zeros(len(weights), 2, WIDTH, device=device)
        self._values = torch.zeros(len(weights), NUM_PLANES, WIDTH, device=device)
        self._gradient_slots = [self._slots(self._gradients, turn) for turn in range(2)]
        self._value_slots = [self._slots(self._values, plane) for plane in range(NUM_PLANES)]
        self._planes = self._values.unbind(1)
        self._pairs = (self._gradients, self._gradients.mT), (self._values, self._values.mT)
        self._taken_at = [-1, -1]  # numbers of the updates
        self._turn = 0

    @property
    def is_valid(self) -> bool:
        """Whether the parameters are still where they were: somebody may have given them other memory."""
        return self._now_at() == self._places

    @torch.no_grad()
    def begin(self, number: int) -> None:
        """Take weights and gradients before the update of that number; a missing gradient counts as 0."""
        self._turn = 1 - self._turn
        self._taken_at[self._turn] = number
        gradients = [parameter.grad for parameter in self._parameters]
        if self._is_shared_out:
            gradients = [None if g is None else local_part(g) for g in gradients]
        there = [None if g is None or g.is_sparse else _spread(g) for g in gradients]
        _copy(self._gradient_slots[self._turn], there)
        _copy(self._value_slots[0], self._weights())

    @torch.no_grad()
    def end(self) -> tuple[list[Tensor], Moment]:
        """Return inner products after the update, flat: of gradients (weights, 2, 2), of weights and update (.., 2, 2)."""
        _copy(self._value_slots[1], self._weights())
        weights, update = self._planes
        update.sub_(weights)
        products = [torch.bmm(x, transposed).view(-1) for x, transposed in self._pairs]
        is_next = self._taken_at[1 - self._turn] == self._taken_at[self._turn] - 1
        return products, Moment(len(self._sizes), sum(self._sizes), self._turn, is_next)

    def _weights(self) -> list[Values]:
        return [
            _spread(local_part(parameter).detach()) if view is None else view
            for parameter, view in zip(self._parameters, self._views, strict=True)
        ]

    def _slots(self, buffer: Tensor, plane: int) -> list[Values]:
        rows = [row[:size] for row, size in zip(buffer[:, plane], self._sizes, strict=True)]
        return [row.numpy() for row in rows] if buffer.is_cpu else list(rows)

    def _now_at(self) -> list[int]:
        if self._is_shared_out:
            return [local_part(parameter).data_ptr() for parameter in self._parameters]
        return [parameter.data_ptr() for parameter in self._parameters]


def draw_sample(optimizer: torch.optim.Optimizer) -> WeightSample | None:
    """Return a sample of an optimizer's matrices, of its vectors where it has no matrices; None where there are neither."""
    listed = [p for group in optimizer.param_groups for p in group["params"]]
    good = [p for p in listed if p.requires_grad and has_values(p) and is_measurable(local_part(p).detach())]
    good = [p for p in good if p.ndim > 1] or good
    good = [p for p in good if p.device == good[0].device]
    if not good:
        return None
    chosen = {round(at) for at in np.linspace(0, len(good) - 1, min(MAX_WEIGHTS, len(good)))}
    return WeightSample([good[index] for index in sorted(chosen)])


def update_numbers(moments: Sequence[Moment], products: Floats) -> UpdateNumbers:
    """Return the numbers of n updates from inner products (n, k) of `WeightSample.end` that are of one sample."""
    steps, num = np.arange(len(moments)), moments[0].num_weights
    now = np.array([moment.turn for moment in moments])
    is_next = np.array([moment.is_next for moment in moments])
    gradients = products[:, : 4 * num].reshape(-1, num, 2, 2)
    values = products[:, 4 * num :].reshape(-1, num, NUM_PLANES, NUM_PLANES)
    weight, update = values[..., 0, 0], values[..., 1, 1]  # (n, weights)
    moved = (weight > 0) & (gradients[steps, :, now, now] > 0)
    with np.errstate(invalid="ignore", over="ignore"):
        ratios = np.sqrt(update / np.where(weight > 0, weight, 1.0))
        total = gradients.sum(axis=1)
        size = np.sqrt(total[:, 0, 0]) * np.sqrt(total[:, 1, 1])
        cosines = np.where(is_next & (size > 0), total[:, 0, 1] / np.where(size > 0, size, 1.0), np.nan)
        return UpdateNumbers(
            _medians(ratios, moved),
            np.where(moved.any(axis=1), np.where(moved, ratios, 0.0).max(axis=1), np.nan),
            np.sqrt(weight.sum(axis=1) / moments[0].num_values),
            np.sqrt(update.sum(axis=1) / moments[0].num_values),
            cosines,
        )


def _medians(ratios: Floats, moved: Flags) -> Floats:
    """Return the median of each row (n,) over those that moved, NaN where none did: all rows at once, unlike nanmedian."""
    in_order = np.sort(np.where(moved, ratios, np.nan), axis=1)  # NaN comes last
    num, rows = moved.sum(axis=1), np.arange(len(ratios))
    middle: Floats = (in_order[rows, np.maximum(num - 1, 0) // 2] + in_order[rows, num // 2]) / 2
    return middle


def _copy(slots: Sequence[Values], values: Sequence[Values | None]) -> None:
    """Copy what `_spread` gave into slots of one device; None is 0."""
    if isinstance(slots[0], np.ndarray):
        for slot, value in zip(slots, values, strict=True):
            slot[:] = 0.0 if value is None else value  # type: ignore[assignment]  # both are numpy's
        return
    tensors = [slot for slot in slots if isinstance(slot, Tensor)]
    pairs = zip(tensors, values, strict=True)
    there = [value if isinstance(value, Tensor) else torch.zeros_like(slot) for slot, value in pairs]
    torch._foreach_copy_(tensors, there)


def _spread(tensor: Tensor) -> Values:
    """Return up to WIDTH values of a tensor, evenly spread; where `_shares_memory` says so in the same memory."""
    num = min(tensor.numel(), WIDTH)
    stride = tensor.numel() // num
    if tensor.is_cpu:
        array = tensor.numpy() if tensor.dtype is not torch.bfloat16 else tensor.float().numpy()
        flat: NDArray[np.float32] = array.reshape(-1)[: num * stride : stride]
        return flat
    return tensor.reshape(-1)[: num * stride : stride]


def _shares_memory(tensor: Tensor) -> bool:
    """Tell whether what `_spread` gives follows the tensor's changes; numpy has no bfloat16."""
    return tensor.is_contiguous() and (tensor.dtype is not torch.bfloat16 or not tensor.is_cpu)
