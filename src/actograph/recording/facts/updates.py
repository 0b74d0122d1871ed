"""`UpdateFacts`: how far an optimizer's updates move its weights, and how its gradients are, as scalars of a run.

No idea of layers' outputs. What is measured at a recorded step goes into the phase "update": the norm of all gradients,
what clipping left of it, and the numbers of a sample of the weights (`UpdateNumbers`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import ref

import numpy as np
import torch
from torch import Tensor

from actograph.hooks.shards import local_part
from actograph.hooks.weight_sample import Moment, WeightSample, draw_sample, update_numbers
from actograph.layout.row import Floats
from actograph.train.waiting import Waiting

PHASE = "update"  # of the scalars, beside "train" and "valid"
GRAD_NORM, CLIP_RATIO = "grad_norm", "clip_ratio"

AddScalar = Callable[[str, int, float, str], None]


class _Note(NamedTuple):
    """Which update's numbers these are: inner products, then the norm of the gradients as used and as they were."""

    suffix: str
    step: int
    moment: Moment
    knows_clip: bool  # whether the gradients were measured before they could be clipped


@dataclass
class _Optimizer:
    optimizer: ref[torch.optim.Optimizer]
    suffix: str
    num_updates: int = 0
    num_listed: int = -1  # parameters, when the sample was drawn
    sample: WeightSample | None = None
    found: list[Tensor] = field(default_factory=list)  # gradients, measured before they could be clipped
    versions: list[int] = field(default_factory=list)
    norm: Tensor | None = None  # of these
    used: Tensor | None = None  # the norm of the gradients of an update that has begun

    def measure(self, gradients: list[Tensor]) -> None:
        self.found, self.norm = gradients, total_norm(gradients)
        self.versions = [gradient._version for gradient in gradients]

    def norm_used(self, gradients: list[Tensor]) -> Tensor:
        """Return the norm of the gradients as they are now, not measured again where nothing has changed them."""
        is_same = len(gradients) == len(self.found) and all(
            now is old and now._version == version
            for now, old, version in zip(gradients, self.found, self.versions, strict=True)
        )
        return self.norm if is_same and self.norm is not None else total_norm(gradients)

    def end(self) -> None:
        self.found, self.versions, self.norm, self.used = [], [], None, None


class UpdateFacts:
    """Told of gradients that are complete, and of updates that begin and end."""

    def __init__(self, add_scalar: AddScalar) -> None:
        self._add_scalar = add_scalar
        self._optimizers: dict[int, _Optimizer] = {}  # by number
        self._waiting = Waiting[_Note]()

    def add_optimizer(self, number: int, optimizer: torch.optim.Optimizer, suffix: str) -> None:
        """Take an optimizer into account, by a number of its own; ``suffix`` tells its scalars from those of others."""
        self._optimizers[number] = _Optimizer(ref(optimizer), suffix)

    def forget_optimizer(self, number: int) -> None:
        """Let go of an optimizer that is gone, and of copies of its weights and gradients."""
        self._optimizers.pop(number, None)

    @torch.no_grad()
    def measure_gradients(self) -> None:
        """Measure the gradients as they are now, complete and not clipped, in a step that is recorded."""
        for one in tuple(self._optimizers.values()):
            optimizer = one.optimizer()
            if optimizer is not None:
                one.measure(gradients_of(optimizer))

    def count_update(self, number: int) -> None:
        """Note that an update is made of which nothing is measured."""
        self._optimizers[number].num_updates += 1

    @torch.no_grad()
    def begin_update(
        self, number: int, optimizer: torch.optim.Optimizer, *, is_recorded: bool, has_gradients: bool
    ) -> None:
        """Note what an optimizer is about to change, in a recorded step and in the one ahead of it."""
        one = self._optimizers[number]
        one.num_updates += 1
        one.used = None
        if not has_gradients:
            return
        num_listed = sum([len(group["params"]) for group in optimizer.param_groups])
        if num_listed != one.num_listed or (one.sample is not None and not one.sample.is_valid):
            one.num_listed, one.sample = num_listed, draw_sample(optimizer)
        if one.sample is None:
            return
        one.sample.begin(one.num_updates)
        if is_recorded:
            one.used = one.norm_used(gradients_of(optimizer))

    @torch.no_grad()
    def after_update(self, number: int, step: int) -> None:
        """Let the numbers of an update that has begun wait on their device."""
        one = self._optimizers.get(number)
        if one is None or one.sample is None or one.used is None:
            return
        products, moment = one.sample.end()
        norms = [one.used, one.used if one.norm is None else one.norm]
        numbers = torch.cat([*products, *[norm.to(products[0].device).view(1) for norm in norms]])
        self._waiting.add(_Note(one.suffix, step, moment, one.norm is not None), numbers)
        one.end()

    def drain(self, *, waits: bool = True) -> None:
        """Store what waited on the device."""
        waited = self._waiting.take(waits=waits)
        # numbers of one sample are worked on at once; of one optimizer the steps stay in order
        kinds = dict.fromkeys((note.suffix, note.moment.num_weights) for note, _ in waited)
        for kind in kinds:
            alike = [one for one in waited if (one[0].suffix, one[0].moment.num_weights) == kind]
            notes, numbers = zip(*alike, strict=True)
            self._store(notes, np.stack(numbers))

    def _store(self, notes: Sequence[_Note], numbers: Floats) -> None:
        used, norm = numbers[:, -2:].T
        knows_clip = np.array([note.knows_clip for note in notes]) & (norm > 0)
        with np.errstate(invalid="ignore"):
            clip_ratio = np.where(knows_clip, used / np.where(norm > 0, norm, 1.0), np.nan)
        found = update_numbers([note.moment for note in notes], numbers[:, :-2])._asdict()
        for name, values in {GRAD_NORM: norm, CLIP_RATIO: clip_ratio, **found}.items():
            for note, value in zip(notes, values.tolist(), strict=True):
                if math.isfinite(value) or name == GRAD_NORM:
                    self._add_scalar(name + note.suffix, note.step, value, PHASE)

    def forget(self) -> None:
        """Let go of the samples."""
        for one in tuple(self._optimizers.values()):
            one.sample, one.num_listed = None, -1
            one.end()


def gradients_of(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the gradients that can be measured together: dense, real, on the device of the first."""
    listed = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if len({(type(g), g.device, g.layout, g.dtype.is_complex) for g in listed}) > 1:
        listed = [local_part(g) for g in listed if not g.is_sparse and not g.is_complex()]
        return [g for g in listed if g.device == listed[0].device]
    first = listed[0] if listed else None
    if first is None or first.is_sparse or first.is_complex():
        return []
    return listed if local_part(first) is first else [local_part(g) for g in listed]


def total_norm(gradients: list[Tensor]) -> Tensor:
    """Return the norm over all gradients, in float32 at least: float16 would overflow."""
    if not gradients:
        return torch.zeros(())
    widest = torch.float64 if gradients[0].dtype is torch.float64 else torch.float32
    norms = torch.stack(torch._foreach_norm(gradients, 2, dtype=widest))
    return norms.square().sum().sqrt()
