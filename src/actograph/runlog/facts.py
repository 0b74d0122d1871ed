"""Facts of a run: things that are certain where they are seen, each with its exact steps; what rules on logic rest on.

No idea of who sees them, nor of what they mean for a training. A fact has a kind and a subject (a module, a parameter, an
optimizer); its size does not grow with the run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

MAX_SUBJECTS = 256  # of one kind; what comes later is counted under OTHERS
OTHERS = "(others)"

Value: TypeAlias = float | str | list[float]


class FactKind(StrEnum):
    """What was so at a step."""

    LOOKED = "looked"  # subject: another kind; the steps at which it was looked for
    EVAL_IN_TRAINING = "eval in training"  # subject: a module in evaluation mode while gradients flowed
    MODE_IN_EVALUATION = "mode in evaluation"  # subject: a model that was evaluated; see its data
    LEFTOVER_GRADIENT = "leftover gradient"  # subject: an optimizer whose last gradients were added to
    MISSING_GRADIENT = "missing gradient"  # subject: a parameter with an optimizer that has moved without one
    UNHELD_PARAMETER = "unheld parameter"  # subject: a parameter with a gradient and without an optimizer
    UNKNOWN_PARAMETER = "unknown parameter"  # subject: a tensor without gradient that only an optimizer knows
    CUT_GRAPH = "cut graph"  # subject: the last layer before the place where the graph is cut
    FROZEN_STATISTICS = (
        "frozen statistics"  # subject: a norm in training mode whose running statistics stand still
    )
    EQUAL_UNITS = "equal units"  # subject: a parameter whose rows are all the same, as they were at the start
    NON_FINITE_INPUT = "non-finite input"  # subject: a model whose input has NaN or infinity
    CONSTANT_INPUT = "constant input"  # subject: a model whose input is one and the same number
    BATCHES = "batches"  # subject: a model; how many of its inputs were different
    PROBABILITIES = "probabilities"  # subject: a loss that takes logits and was given probabilities
    LABELS = "labels"  # subject: a loss; how often each class was its target
    LOSS_CALLS = "loss calls"  # subject: a loss; how it is called in training, and what came of the samples
    BROADCAST_LOSS = "broadcast loss"  # subject: a loss; outputs and targets of different shapes
    BACKWARD_FROM = (
        "backward from"  # subject: a loss; the number a backward began with over what the loss returned
    )
    NEGATED_LOSS = "negated loss"  # subject: a loss; a backward began with the negative of what it returned
    MAXIMIZED = "maximized"  # subject: an optimizer that goes up what its backward began with
    EVALUATION = "evaluation"  # subject: a phase of scalars; what came of the samples of an evaluation
    SAMPLES = "samples"  # subject: a phase of scalars; how many of the evaluated samples were trained on
    FEATURES = "features"  # subject: a model; the scales of its input's features
    FLOW = "flow"  # subject: a module with weights; what feeds it, see `runlog.flow`
    SCALE = "scale"  # subject: a weight; its size at the start, and that of its gradients at some steps
    SKIPPED_UPDATE = "skipped update"  # subject: an optimizer that a gradient scaler did not let move
    SETTINGS = "settings"  # subject: an optimizer; what it was set to, since it was so
    CLIPPING = "clipping"  # subject: "norm" or "value"; the limit at which gradients were clipped
    DROPOUT = "dropout"  # subject: a layer that drops a share of its values


@dataclass(frozen=True)
class Fact:
    """Something that was so at ``num_steps`` of the steps at which it was looked for.

    ``since`` is where the last unbroken stretch of these begins; it ends at ``last_step``. ``data`` is plain JSON data.
    """

    kind: FactKind
    subject: str
    first_step: int
    since: int
    last_step: int
    num_steps: int
    data: Mapping[str, Value] = field(default_factory=dict)

    def number(self, name: str) -> float:
        """Return a number from the data, 0 where it is missing."""
        value = self.data.get(name, 0.0)
        return float(value) if isinstance(value, (int, float)) else 0.0

    def text(self, name: str) -> str:
        """Return a text from the data, empty where it is missing."""
        return str(self.data.get(name, ""))


class FactTable:
    """The facts of a run that is being written."""

    def __init__(self) -> None:
        self._facts: dict[tuple[FactKind, str], Fact] = {}
        self._looked: dict[
            FactKind, list[int]
        ] = {}  # first, last and number of steps: counted without objects
        self._ended: set[tuple[FactKind, str]] = set()  # the next time begins a stretch of its own
        self._changed: dict[tuple[FactKind, str], None] = {}  # since they were stored, dropped ones too
        self._num: Counter[FactKind] = Counter()

    def look(self, kind: FactKind, step: int) -> None:
        """Say that a kind was looked for at a step."""
        looked = self._looked.get(kind)
        if looked is None:
            self._looked[kind] = [step, step, 1]
        elif step > looked[1]:
            looked[1] = step
            looked[2] += 1

    def note(self, kind: FactKind, subject: str, step: int, /, **data: Value) -> None:
        """Say that something was so at a step, not earlier than the last time; ``data`` replaces what there was."""
        key = kind, subject
        old = self._facts.get(key)
        if old is None and self._num[kind] >= MAX_SUBJECTS:
            key = kind, OTHERS
            old = self._facts.get(key)
        if old is None:
            self._num[kind] += 1
            new = Fact(kind, key[1], step, step, step, 1, data)
        else:
            num_steps = old.num_steps + (step > old.last_step)
            since = step if key in self._ended else old.since
            new = replace(old, since=since, last_step=step, num_steps=num_steps, data={**old.data, **data})
        self._facts[key] = new
        self._ended.discard(key)
        self._changed[key] = None

    def end(self, kind: FactKind, subject: str) -> None:
        """Say that something is so no more."""
        if (kind, subject) in self._facts:
            self._ended.add((kind, subject))

    def drop(self, kind: FactKind, subject: str) -> None:
        """Take back what was said: it has turned out to be otherwise."""
        if self._facts.pop((kind, subject), None) is not None:
            self._num[kind] -= 1
            self._changed[kind, subject] = None

    def get(self, kind: FactKind, subject: str) -> Fact | None:
        """Return a fact, None where it was never noted."""
        return self._facts.get((kind, subject))

    def take_changes(self) -> tuple[list[Fact], list[tuple[FactKind, str]]]:
        """Return the facts that changed since the last call, and the keys of those that were dropped."""
        changed = [self._facts[key] for key in self._changed if key in self._facts]
        dropped = [key for key in self._changed if key not in self._facts]
        self._changed = {}
        return [*changed, *self._all_looked()], dropped

    def take_up(self, facts: list[Fact]) -> None:
        """Go on from the facts of another table, which are stored as they are."""
        fresh = FactTable()
        vars(self).update(vars(fresh))
        for fact in facts:
            if fact.kind is FactKind.LOOKED:
                looked = [fact.first_step, fact.last_step, fact.num_steps]
                self._looked[FactKind(fact.subject)] = looked
            else:
                self._facts[fact.kind, fact.subject] = fact
                self._num[fact.kind] += 1

    def view(self) -> FactView:
        """Return the facts as they are now."""
        return FactView((*self._facts.values(), *self._all_looked()))

    def _all_looked(self) -> Iterator[Fact]:
        for kind, (first, last, num) in self._looked.items():
            yield Fact(FactKind.LOOKED, kind.value, first, first, last, num)


@dataclass(frozen=True)
class FactView:
    """The facts of a run, as read."""

    facts: tuple[Fact, ...] = ()

    def of(self, kind: FactKind) -> tuple[Fact, ...]:
        """Return the facts of a kind, earliest first, as they were seen where that is the same."""
        return tuple(
            sorted((fact for fact in self.facts if fact.kind is kind), key=lambda fact: fact.first_step)
        )

    def looked(self, kind: FactKind) -> Fact | None:
        """Return when a kind was looked for; None: never."""
        return next((fact for fact in self.of(FactKind.LOOKED) if fact.subject == kind.value), None)

    def lasting(self, kind: FactKind) -> tuple[Fact, ...]:
        """Return the facts of a kind that were so when it was last looked for."""
        looked = self.looked(kind)
        return tuple(fact for fact in self.of(kind) if looked is None or fact.last_step >= looked.last_step)

    def until(self, num_steps: int) -> FactView:
        """Return about what was known after so many steps: what began later is left out, what lasted longer cut off."""
        kept = [fact for fact in self.facts if fact.first_step < num_steps]
        return FactView(tuple(_cut(fact, num_steps - 1) for fact in kept))


def _cut(fact: Fact, last_step: int) -> Fact:
    if fact.last_step <= last_step:
        return fact
    num_steps = min(fact.num_steps, last_step - fact.first_step + 1)
    since = fact.since if fact.since <= last_step else fact.first_step
    return replace(fact, since=since, last_step=last_step, num_steps=num_steps)
