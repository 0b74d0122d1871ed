"""`observe` in plain torch: any device, any strided layout, no host synchronisation. Slow; the others must equal it.

No idea of modules or steps. It makes about twenty passes over float64 copies: the price of being easy to check.
"""

from __future__ import annotations

import torch
from torch import Tensor

from actograph.layout import bins
from actograph.layout.layer import FlatRegion
from actograph.layout.row import NEAR_ZERO, Field
from actograph.sketch.block import row_dtype
from actograph.sketch.links import Slot


def observe(x: Tensor, slot: Slot, *, look_for_flat: bool = True) -> None:
    """Merge the statistics of ``x`` (any shape, floating point) into the slot.

    With ``look_for_flat`` false the flat region is left to `observe_flat` on another tensor.
    """
    values = x.detach().reshape(-1)
    if not values.numel():
        return
    finite = torch.isfinite(values)
    exact = torch.where(finite, values, 0).to(row_dtype(x.device))
    negative, positive = exact < 0, exact > 0
    _merge_moments(slot.values[Field.NEG_COUNT : Field.NEG_M2 + 1], exact, negative)
    _merge_moments(slot.values[Field.POS_COUNT : Field.POS_M2 + 1], exact, positive)
    num_finite = finite.sum()
    counts = {
        Field.ZEROS: num_finite - negative.sum() - positive.sum(),
        Field.NEAR_ZERO: ((exact.abs() <= NEAR_ZERO) & finite).sum(),
        Field.NEAR_ZERO_NEG: (negative & (exact >= -NEAR_ZERO)).sum(),
        Field.NAN: torch.isnan(values).sum(),
        Field.INF: torch.isinf(values).sum(),
        Field.INF_NEG: torch.isneginf(values).sum(),
    }
    for position, count in counts.items():
        slot.values[position] += count
    slot.values[Field.MIN].clamp_(max=torch.where(finite, exact, torch.inf).min())
    slot.values[Field.MAX].clamp_(min=torch.where(finite, exact, -torch.inf).max())
    slot.hist += _histogram(values, finite, positive.to(torch.int8) - negative.to(torch.int8))
    if look_for_flat and slot.flat is not None:
        observe_flat(x, slot)
    if len(slot.rectified):
        _mark_units(~(x.detach() <= 0), slot.channel_axis, slot.rectified)


def observe_flat(x: Tensor, slot: Slot) -> None:
    """Merge into the slot how many values of ``x`` lie in the flat region, and which units left it."""
    if slot.flat is None or not x.numel():
        return
    inside = in_flat_region(x.detach(), slot.flat)
    slot.values[Field.FLAT] += inside.sum()
    _mark_units(~inside, slot.channel_axis, slot.fired)


def _mark_units(outside: Tensor, axis: int | None, flags: Tensor) -> None:
    """Set the flags (units,) of units with any value outside; ``outside`` is bool, of the tensor's shape."""
    if len(flags) and axis is not None and axis < outside.ndim and outside.shape[axis] == len(flags):
        flags |= outside.movedim(axis, 0).reshape(len(flags), -1).any(1)


def in_flat_region(x: Tensor, flat: FlatRegion) -> Tensor:
    """Tell for each value whether it is finite and inside one of the region's intervals; same shape, bool."""
    exact = x.to(row_dtype(x.device))
    inside = torch.zeros_like(exact, dtype=torch.bool)
    for low, high in flat.intervals:
        inside |= (exact >= low) & (exact <= high)
    return inside & torch.isfinite(exact)


def _merge_moments(into: Tensor, exact: Tensor, chosen: Tensor) -> None:
    """Merge count, mean and M2 of the chosen values into a slot's three fields (Chan et al. 1979), in two passes.

    The second pass corrects the mean of the first (Chan et al. 1983), so that float32 serves where there is no float64.
    """
    num = chosen.sum().to(exact.dtype)
    at_least_one = num.clamp(min=1)
    mean = torch.where(chosen, exact, 0).sum() / at_least_one
    deviation = torch.where(chosen, exact - mean, 0)
    rest = deviation.sum() / at_least_one
    mean = mean + rest
    m2 = (deviation.square().sum() - num * rest.square()).clamp(min=0)
    old_num, old_mean, old_m2 = into.unbind()
    total = old_num + num
    delta = mean - old_mean
    share = num / total.clamp(min=1)
    into.copy_(torch.stack([total, old_mean + delta * share, old_m2 + m2 + delta * delta * old_num * share]))


def _histogram(values: Tensor, finite: Tensor, sign: Tensor) -> Tensor:
    """Count (NUM_BINS,) the finite values by `bins.bin_index`; the others go to one bin more, which is dropped."""
    bits = values.to(torch.float32).abs().view(torch.int32)
    magnitude = ((bits >> bins.KEY_SHIFT) - bins.KEY_OFFSET).clamp(0, bins.MAGNITUDES - 1)
    index = torch.where(finite, bins.ZERO_BIN + (magnitude + 1) * sign, bins.NUM_BINS).long()
    if values.device.type == "cpu":
        return torch.bincount(index, minlength=bins.NUM_BINS + 1)[:-1]
    # bincount synchronises on other devices to learn its length, and is not deterministic there
    counts = torch.zeros(bins.NUM_BINS + 1, dtype=torch.int64, device=values.device)
    return counts.scatter_add_(0, index, torch.ones_like(index))[:-1]
