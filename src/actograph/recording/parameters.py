"""`ParameterRecorder`: writes gradients, weights and updates of optimizers' parameters into a run.

No idea of models' layers, of hooks or of when a step is to be recorded: `Recording` has those.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from actograph.hooks.parameter_norms import Measured, ParameterNorms, has_values, parameter_rows
from actograph.hooks.shards import is_shard
from actograph.layout.parameter import ParameterInfo, empty_parameter_rows, merge_parameter_rows
from actograph.layout.row import Floats
from actograph.runlog.store import RunWriter
from actograph.train.waiting import Waiting

GRAD_NORM, CLIP_RATIO = "grad_norm", "clip_ratio"  # scalars of a step, over all parameters of an optimizer


@dataclass
class _Watched:
    """One optimizer: which rows its parameters have, and what measures them."""

    suffix: str  # of its scalars
    positions: list[int]
    norms: ParameterNorms
    num_listed: int  # parameters of the optimizer, those without values too


@dataclass(frozen=True)
class _Note:
    step: int
    watched: _Watched
    measured: Measured


class ParameterRecorder:
    """Measures the parameters of the optimizers it is given, on their device, and stores rows some steps later."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._names: dict[int, str] = {}  # by id of the parameter, which models keep alive
        self._positions: dict[int, int] = {}  # rows, by id of the parameter
        self._watched: dict[torch.optim.Optimizer, _Watched] = {}
        self._waiting = Waiting[_Note]()

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Learn the names of a model's parameters; tied ones have the first of their names."""
        for name, parameter in model.named_parameters():
            self._names.setdefault(id(parameter), prefix + name)

    def add_optimizer(self, optimizer: torch.optim.Optimizer, suffix: str) -> None:
        """Measure the optimizer's parameters from now on; ``suffix`` tells its scalars from those of others."""
        listed = [p for group in optimizer.param_groups for p in group["params"]]
        parameters = [p for p in listed if has_values(p)]
        positions = [self._position(parameter, f"parameter{suffix}") for parameter in parameters]
        self._watched[optimizer] = _Watched(suffix, positions, ParameterNorms(parameters), len(listed))

    def discard(self, optimizer: torch.optim.Optimizer) -> None:
        """Measure the optimizer's parameters no more."""
        self._watched.pop(optimizer, None)

    def __contains__(self, optimizer: torch.optim.Optimizer) -> bool:
        return optimizer in self._watched

    def measure_gradients(self) -> None:
        """Measure all gradients as they are now: complete, unscaled, not clipped."""
        for watched in self._watched.values():
            watched.norms.measure_gradients(knows_clip=True)

    def begin_update(self, optimizer: torch.optim.Optimizer, *, has_gradients: bool) -> None:
        """Note what the optimizer is about to change; without ``has_gradients`` it computes them itself."""
        watched = self._watched[optimizer]
        groups = optimizer.param_groups
        if watched.num_listed != sum(len(group["params"]) for group in groups) or (
            watched.num_listed
            != len(watched.positions)  # some have no values yet: a lazy module may have made its own
            and sum(has_values(p) for group in groups for p in group["params"]) != len(watched.positions)
        ):
            self.add_optimizer(optimizer, watched.suffix)
            watched = self._watched[optimizer]
        watched.norms.begin_update(has_gradients=has_gradients)

    def end_update(self, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Note what the optimizer has changed."""
        watched = self._watched[optimizer]
        found = watched.norms.end_update()
        if found is not None:
            measured, numbers = found
            self._waiting.add(_Note(step, watched, measured), numbers)

    def drain(self, *, waits: bool = True) -> None:
        """Store what waits on the device; without ``waits`` only what has come to the host by now."""
        by_step: defaultdict[int, list[Floats]] = defaultdict(list)
        for watched, measured, steps, numbers in _alike(self._waiting.take(waits=waits)):
            rows, totals = parameter_rows(steps, measured, numbers)
            all_rows = empty_parameter_rows(len(steps), len(self._positions))
            all_rows[:, watched.positions] = rows
            for step, row, grad_norm, clip_ratio in zip(steps, all_rows, *totals, strict=True):
                by_step[step].append(row)
                self._writer.add_scalar(GRAD_NORM + watched.suffix, step, float(grad_norm))
                if not math.isnan(clip_ratio):
                    self._writer.add_scalar(CLIP_RATIO + watched.suffix, step, float(clip_ratio))
        for step, parts in sorted(by_step.items()):
            self._writer.add_parameter_rows(
                step, parts[0] if len(parts) == 1 else merge_parameter_rows(np.stack(parts))
            )

    def _position(self, parameter: torch.Tensor, default_name: str) -> int:
        """Return the row of a parameter, which it gets when it is first seen."""
        position = self._positions.get(id(parameter))
        if position is None:
            position = self._positions[id(parameter)] = len(self._positions)
            name = self._names.get(id(parameter), f"{default_name}.{position}")
            dtype = str(parameter.dtype).removeprefix("torch.")
            self._writer.add_parameter(
                ParameterInfo(name, tuple(parameter.shape), dtype, is_shard(parameter))
            )
        return position


def _alike(waited: Sequence[tuple[_Note, Floats]]) -> Iterator[tuple[_Watched, Measured, list[int], Floats]]:
    """Yield the steps of each optimizer that were measured alike, with their numbers (n, k), to be worked on at once."""

    def kind(one: tuple[_Note, Floats]) -> tuple[int, list[int], bool]:
        measured = one[0].measured
        return id(one[0].watched), measured.present, measured.knows_clip

    in_order = sorted(
        waited, key=lambda one: one[0].watched.suffix
    )  # of one optimizer the steps stay in order
    for _, group in itertools.groupby(in_order, kind):
        notes, numbers = zip(*group, strict=True)
        yield notes[0].watched, notes[0].measured, [note.step for note in notes], np.stack(numbers)
