"""`InputFacts`: mean, spread, extremes and non-finite values of models' inputs, and how many of them were different.

No idea of layers. Of each forward that is recorded, the first tensor of floating-point numbers is measured as an output is
(`sketch`), and a few of its values tell it from others.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

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
NUM_PROBED = 16  # values of a batch that tell it from others
MAX_KNOWN = 4096  # batches remembered

AddScalar = Callable[[str, int, float, str], None]


@dataclass
class _Source:
    """The inputs of one model."""

    name: str
    suffix: str  # of its scalars
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
        self._measured: dict[int, tuple[_Source, Slot]] = {}
        self._empty: dict[torch.device, Tensor] = {}  # rows without values, each on its device

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model into account."""
        name = prefix.rstrip(".") or ROOT_NAME
        self._sources[id(model)] = _Source(name, f"@{name}" if prefix else "")

    def enter(self, model: nn.Module, inputs: object, step: int) -> None:
        """Measure what a forward that is recorded gets."""
        found = next((tensor for _, tensor in tensors_of(inputs) if is_measurable(tensor)), None)
        if found is None or not found.numel():
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

    def end_step(self, step: int) -> None:
        """Let what was measured since the last step wait on its device."""
        for source, slot in self._measured.values():
            self._rows.add((source, step, source.batch_size), slot.values.clone())
            slot.values.copy_(self._empty[slot.values.device])
        self._measured = {}

    def _take_rows(self, *, waits: bool) -> None:
        for (source, step, batch_size), row in self._rows.take(waits=waits):
            self._table.look(FactKind.NON_FINITE_INPUT, step)
            self._table.look(FactKind.CONSTANT_INPUT, step)
            self._judge(source, row, step)
            if is_looked_at(step):  # a step, not a count: a run that goes on keeps the same ones
                self._store(source, row, step, batch_size)

    def _judge(self, source: _Source, row: Floats, step: int) -> None:
        bad = float(row[Field.NAN] + row[Field.INF])
        if bad:
            share = bad / float(bad + moments(row).num)
            nan = float(row[Field.NAN])
            self._table.note(
                FactKind.NON_FINITE_INPUT, source.name, step, nan=nan, inf=bad - nan, share=share
            )
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


def _probe(x: Tensor) -> Tensor:
    """Return a few values spread over a tensor."""
    flat = x.detach().reshape(-1) if x.is_contiguous() else x.detach()[:1].reshape(-1)
    stride = max(flat.numel() // NUM_PROBED, 1)
    return flat[::stride][:NUM_PROBED].to(torch.float32, copy=True)
