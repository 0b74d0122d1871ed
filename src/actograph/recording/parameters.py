"""`ParameterRecorder`: writes gradients, weights and updates of optimizers' parameters into a run.

No idea of models' layers, of hooks or of when a step is to be recorded: `Recording` has those.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from collections.abc import Iterator, MutableMapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from actograph.hooks.parameter_norms import Measured, ParameterNorms, has_values, parameter_rows
from actograph.hooks.shards import is_shard
from actograph.layout.parameter import ParameterInfo, empty_parameter_rows, merge_parameter_rows
from actograph.layout.row import Floats
from actograph.runlog.store import RunWriter
from actograph.train.waiting import Waiting

GRAD_NORM, CLIP_RATIO = "grad_norm", "clip_ratio"  # scalars of a step, over all parameters of an optimizer


@dataclass(frozen=True)
class _Rows:
    """Where an optimizer's numbers go; what waits needs no more, and keeps no weights."""

    suffix: str  # of its scalars
    positions: list[int]


@dataclass
class _Watched:
    """One optimizer: which rows its parameters have, and what measures them."""

    rows: _Rows
    norms: ParameterNorms
    num_listed: int  # parameters of the optimizer, those without values too


@dataclass(frozen=True)
class _Note:
    step: int
    rows: _Rows
    measured: Measured


class ParameterRecorder:
    """Measures the parameters of the optimizers it is given, on their device, and stores rows some steps later."""

    def __init__(self, writer: RunWriter) -> None:
        self._writer = writer
        self._names: MutableMapping[torch.Tensor, str] = WeakIdKeyDictionary()  # by parameter
        self._positions: MutableMapping[torch.Tensor, int] = WeakIdKeyDictionary()  # rows, by parameter
        self._num_rows = 0
        self.watched: dict[int, _Watched] = {}  # by number of the optimizer
        self._waiting = Waiting[_Note]()

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Learn the names of a model's parameters; tied ones have the first of their names."""
        for name, parameter in model.named_parameters():
            self._names.setdefault(parameter, prefix + name)

    def add_optimizer(self, number: int, optimizer: torch.optim.Optimizer, suffix: str) -> None:
        """Measure the optimizer's parameters from now on; ``suffix`` tells its scalars from those of others.

        Optimizers are told apart by number.
        """
        listed = [p for group in optimizer.param_groups for p in group["params"]]
        parameters = [p for p in listed if has_values(p)]
        positions = [self._position(parameter, f"parameter{suffix}") for parameter in parameters]
        self.watched[number] = _Watched(_Rows(suffix, positions), ParameterNorms(parameters), len(listed))

    def discard(self, number: int) -> None:
        """Measure the optimizer's parameters no more; lets go of the copy of its weights."""
        self.watched.pop(number, None)

    def measure_gradients(self) -> None:
        """Measure all gradients as they are now: complete, unscaled, not clipped."""
        for watched in tuple(self.watched.values()):
            watched.norms.measure_gradients(knows_clip=True)

    def begin_update(self, number: int, optimizer: torch.optim.Optimizer, *, has_gradients: bool) -> None:
        """Note what the optimizer is about to change; without ``has_gradients`` it computes them itself."""
        watched = self.watched[number]
        groups = optimizer.param_groups
        if watched.num_listed != sum(len(group["params"]) for group in groups) or (
            watched.num_listed
            != len(watched.rows.positions)  # some have no values yet: a lazy module may have made its own
            and sum(has_values(p) for group in groups for p in group["params"]) != len(watched.rows.positions)
        ):
            self.add_optimizer(number, optimizer, watched.rows.suffix)
            watched = self.watched[number]
        watched.norms.begin_update(has_gradients=has_gradients)

    def end_update(self, number: int, step: int) -> None:
        """Note what the optimizer has changed."""
        watched = self.watched[number]
        found = watched.norms.end_update()
        if found is not None:
            measured, numbers = found
            self._waiting.add(_Note(step, watched.rows, measured), numbers)

    def drain(self, *, waits: bool = True) -> None:
        """Store what waits on the device; without ``waits`` only what has come to the host by now."""
        by_step: defaultdict[int, list[Floats]] = defaultdict(list)
        for place, measured, steps, numbers in _alike(self._waiting.take(waits=waits)):
            rows, totals = parameter_rows(steps, measured, numbers)
            all_rows = empty_parameter_rows(len(steps), self._num_rows)
            all_rows[:, place.positions] = rows
            for step, row, grad_norm, clip_ratio in zip(steps, all_rows, *totals, strict=True):
                by_step[step].append(row)
                self._writer.add_scalar(GRAD_NORM + place.suffix, step, float(grad_norm))
                if not math.isnan(clip_ratio):
                    self._writer.add_scalar(CLIP_RATIO + place.suffix, step, float(clip_ratio))
        for step, parts in sorted(by_step.items()):
            self._writer.add_parameter_rows(
                step, parts[0] if len(parts) == 1 else merge_parameter_rows(np.stack(parts))
            )

    def _position(self, parameter: torch.Tensor, default_name: str) -> int:
        """Return the row of a parameter, which it gets when it is first seen."""
        position = self._positions.get(parameter)
        if position is None:
            position = self._positions[parameter] = self._num_rows
            self._num_rows += 1
            name = self._names.get(parameter, f"{default_name}.{position}")
            dtype = str(parameter.dtype).removeprefix("torch.")
            self._writer.add_parameter(
                ParameterInfo(name, tuple(parameter.shape), dtype, is_shard(parameter))
            )
        return position


def _alike(waited: Sequence[tuple[_Note, Floats]]) -> Iterator[tuple[_Rows, Measured, list[int], Floats]]:
    """Yield the steps of each optimizer that were measured alike, with their numbers (n, k), to be worked on at once."""

    def kind(one: tuple[_Note, Floats]) -> tuple[int, list[int], bool]:
        measured = one[0].measured
        return id(one[0].rows), measured.present, measured.knows_clip

    in_order = sorted(waited, key=lambda one: one[0].rows.suffix)  # of one optimizer the steps stay in order
    for _, group in itertools.groupby(in_order, kind):
        notes, numbers = zip(*group, strict=True)
        yield notes[0].rows, notes[0].measured, [note.step for note in notes], np.stack(numbers)
