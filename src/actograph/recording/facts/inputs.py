"""`InputFacts`: mean, spread, extremes and non-finite values of models' inputs, and how many of them were different.

No idea of layers. Of each forward that is recorded, the first tensor of floating-point numbers is measured as an output is
(`sketch`), and a few of its values tell it from others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from weakref import ref

import numpy as np
import torch
from torch import Tensor, nn

from actograph.hooks.leaves import ROOT_NAME, tensors_of
from actograph.layout.row import Field, Floats, moments
from actograph.recording.facts.thinning import is_looked_at
from actograph.runlog.facts import FactKind, FactTable
from actograph.sketch.block import Block
from actograph.sketch.links import Slot
from actograph.sketch.observe import is_measurable, observe_output
from actograph.train.waiting import Waiting

PHASE = "input"  # of the scalars, beside "train" and "valid"
STORED_UP_TO = 64  # steps whose numbers are all stored
STORED_SHARE = 0.25  # of the later ones
MAX_FEATURES = 512  # of a table whose columns are measured one by one
MATRIX = 2  # axes of a table
MIN_ROWS = 8  # of a batch that tells the spread of a column
NUM_DOUBTS = 12  # steps after one with an input of a single value: is it so again?
NUM_PROBED = 16  # values of a batch that tell it from others
MAX_KNOWN = 4096  # batches remembered

AddScalar = Callable[[str, int, float, str], None]


@dataclass
class _Features:
    """Sums over batches of each column's mean, its square and its variance (3, F)."""

    sums: Floats
    num: int = 0


@dataclass
class _Source:
    """The inputs of one model."""

    name: str
    suffix: str  # of its scalars
    last: ref[Tensor] | None = None  # input of the last forward with gradients
    looked_back_at: int = -1  # the last step
    features: _Features | None = None
    slots: dict[torch.device, Slot] = field(default_factory=dict)
    known: set[bytes] = field(default_factory=set)
    batch_size: float = 0.0
    num_forwards: int = 0
    num_batches: int = 0
    num_new: int = 0


class InputFacts:
    """Told of forwards and of steps that end."""

    def __init__(self, table: FactTable, add_scalar: AddScalar) -> None:
        self._table = table
        self._add_scalar = add_scalar
        self._block = Block()
        self._sources: dict[int, _Source] = {}
        self._waiting = Waiting[tuple[_Source, int]]()
        self._rows = Waiting[tuple[_Source, int, float]]()  # with the size of the step's last batch
        self.num_doubts = 0  # steps in which to look again, whatever the loss
        self._columns = Waiting[tuple[_Source, int]]()
        self._measured: dict[int, tuple[_Source, Slot]] = {}
        self._empty: dict[torch.device, Tensor] = {}  # rows without values, each on its device

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model into account."""
        name = prefix.rstrip(".") or ROOT_NAME
        self._sources[id(model)] = _Source(name, f"@{name}" if prefix else "")

    def forget_model(self, key: int) -> None:
        """Let go of a model that is gone; what was measured of its inputs still counts."""
        self._sources.pop(key, None)

    def begin(self, model: nn.Module, inputs: object) -> None:
        """Remember what a training forward gets, until the next one: it is looked at if its loss is strange."""
        if torch.is_grad_enabled():
            found = first_of(inputs)
            self._sources[id(model)].last = None if found is None else ref(found)

    def look_back(self, step: int) -> None:
        """Look whether the inputs of the last forwards were finite, and of more than one value."""
        for source in tuple(self._sources.values()):
            found = None if source.last is None else source.last()
            if found is not None and found.device.type == "cpu":  # elsewhere recorded steps have to do
                source.looked_back_at = step
                values = found.detach()
                nan, inf = int(values.isnan().sum()), int(values.isinf().sum())  # no sync: on the host
                for kind in (FactKind.NON_FINITE_INPUT, FactKind.CONSTANT_INPUT):
                    self._table.look(kind, step)
                if nan or inf:
                    share = (nan + inf) / values.numel()
                    self._note_non_finite(source, step, float(nan), float(inf), share)
                elif values.numel() > 1 and values.amin() == values.amax():
                    value = float(values.reshape(-1)[0])
                    self._table.note(FactKind.CONSTANT_INPUT, source.name, step, value=value)
                    self.num_doubts = self.num_doubts - 1 if self.num_doubts else NUM_DOUBTS
                else:
                    self._table.end(FactKind.CONSTANT_INPUT, source.name)
                    self.num_doubts = 0

    def _note_non_finite(self, source: _Source, step: int, nan: float, inf: float, share: float) -> None:
        self._table.note(FactKind.NON_FINITE_INPUT, source.name, step, nan=nan, inf=inf, share=share)

    def enter(self, model: nn.Module, inputs: object, step: int) -> None:
        """Measure what a forward that is recorded gets."""
        found = first_of(inputs)
        if found is None:
            return
        source = self._sources[id(model)]
        slot = source.slots.get(found.device)
        if slot is None:
            slot = source.slots[found.device] = self._block.add(found.device, None, None, 0)
            self._empty[found.device] = slot.values.clone()  # a copy from the host would wait for the device
        observe_output(found, slot)
        self._measured[id(slot)] = source, slot
        source.batch_size = float(found.shape[0] if found.ndim else 1)
        number, source.num_forwards = source.num_forwards, source.num_forwards + 1
        if is_looked_at(number):
            self._waiting.add((source, step), _probe(found))
            if found.ndim == MATRIX and len(found) >= MIN_ROWS and 1 < found.shape[1] <= MAX_FEATURES:
                self._columns.add((source, step), _spread_of_columns(found))

    def end_step(self, step: int) -> None:
        """Let what was measured since the last step wait on its device."""
        measured, self._measured = self._measured, {}
        for source, slot in measured.values():
            self._rows.add((source, step, source.batch_size), slot.values.clone())
            slot.values.copy_(self._empty[slot.values.device])

    def _take_rows(self, *, waits: bool) -> None:
        for (source, step, batch_size), row in self._rows.take(waits=waits):
            self._table.look(FactKind.NON_FINITE_INPUT, step)
            self._table.look(FactKind.CONSTANT_INPUT, step)
            self._judge(source, row, step)
            if step < STORED_UP_TO or is_looked_at(
                step, STORED_SHARE
            ):  # a step, not a count: a run that goes on keeps the same ones
                self._store(source, row, step, batch_size)

    def _judge(self, source: _Source, row: Floats, step: int) -> None:
        if step <= source.looked_back_at:
            return  # it is known already, or older than what is
        bad = float(row[Field.NAN] + row[Field.INF])
        if bad:
            share = bad / float(bad + moments(row).num)
            nan = float(row[Field.NAN])
            self._note_non_finite(source, step, nan, bad - nan, share)
        else:
            self._table.end(FactKind.NON_FINITE_INPUT, source.name)
        if row[Field.MIN] == row[Field.MAX] and not bad and moments(row).num > 1:
            self._table.note(FactKind.CONSTANT_INPUT, source.name, step, value=float(row[Field.MIN]))
        elif row[Field.MIN] < row[Field.MAX] or bad:
            self._table.end(FactKind.CONSTANT_INPUT, source.name)

    def _store(self, source: _Source, row: Floats, step: int, batch_size: float) -> None:
        found = moments(row)
        values = {"batch_size": batch_size}
        if found.num > 1:
            std = math.sqrt(float(found.m2 / (found.num - 1)))
            extent = {"min": float(row[Field.MIN]), "max": float(row[Field.MAX])}
            values |= {"mean": float(found.mean), "std": std, **extent}
        for name, value in values.items():
            self._add_scalar(name + source.suffix, step, value, PHASE)

    def drain(self, *, waits: bool = True) -> None:
        """Judge and count the batches that waited on the device."""
        self._take_rows(waits=waits)
        for (source, step), numbers in self._columns.take(waits=waits):
            self._take_columns(source, step, numbers.reshape(2, -1))
        seen: dict[int, tuple[_Source, int]] = {}
        for (source, step), numbers in self._waiting.take(waits=waits):
            key = numbers.tobytes()
            source.num_batches += 1
            source.num_new += key not in source.known
            if len(source.known) < MAX_KNOWN:
                source.known.add(key)
            seen[id(source)] = source, step
        for source, step in seen.values():
            self._table.note(
                FactKind.BATCHES, source.name, step,
                batches=float(source.num_batches), different=float(source.num_new),
            )  # fmt: skip

    def _take_columns(self, source: _Source, step: int, numbers: Floats) -> None:
        """Add the means and variances (2, F) of a batch's columns, and note the one of the largest scale."""
        mean, variance = numbers
        if source.features is None or source.features.sums.shape[1] != len(mean):
            source.features = _Features(np.zeros((3, len(mean))))
        features = source.features
        if not np.isfinite(numbers).all():
            return
        features.sums += np.stack([mean, mean**2, variance])
        features.num += 1
        center, square, within = features.sums / features.num
        std = np.sqrt(within + np.maximum(square - center**2, 0.0))
        size = np.sqrt(std**2 + center**2)
        varied = np.flatnonzero(std > 0)
        if not varied.size:
            return
        largest = int(varied[np.argmax(std[varied])])
        self._table.look(FactKind.FEATURES, step)
        self._table.note(
            FactKind.FEATURES, source.name, step,
            features=float(len(std)), varied=float(varied.size), largest=float(largest), largest_std=float(std[largest]),
            largest_mean=float(center[largest]), median_std=float(np.median(std[varied])),
            median_size=float(np.median(size[varied])),
        )  # fmt: skip


def first_of(inputs: object) -> Tensor | None:
    """Return the first tensor of floating-point numbers among a forward's inputs, None where there is none with values."""
    found = next((tensor for _, tensor in tensors_of(inputs) if is_measurable(tensor)), None)
    return found if found is not None and found.numel() else None


def _spread_of_columns(x: Tensor) -> Tensor:
    """Return the mean and the variance of each column of (N, F): (2, F)."""
    variance, mean = torch.var_mean(x.detach().float(), dim=0)
    return torch.stack([mean, variance])


def _probe(x: Tensor) -> Tensor:
    """Return a few values spread over a tensor."""
    flat = x.detach().reshape(-1) if x.is_contiguous() else x.detach()[:1].reshape(-1)
    stride = max(flat.numel() // NUM_PROBED, 1)
    return flat[::stride][:NUM_PROBED].to(torch.float32, copy=True)
