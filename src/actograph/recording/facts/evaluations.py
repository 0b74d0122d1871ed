"""`EvaluationFacts`: losses, accuracies and samples of evaluations, seen where nobody says them.

No idea of models' layers. An evaluation is a forward and a loss both without gradients; calls from one place of the script
between two steps are one evaluation. What is added up stays on its device until the next step ends.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from actograph.layout.row import Floats
from actograph.recording.facts.inputs import first_of
from actograph.recording.facts.loss_call import LossCall, num_samples
from actograph.recording.facts.outcomes import Part, Task, num_parts, outcome_of
from actograph.recording.facts.samples import SampleSet, fingerprints
from actograph.recording.facts.thinning import is_looked_at
from actograph.runlog.facts import FactKind, FactTable, Value
from actograph.sketch.observe import is_measurable
from actograph.train.waiting import Waiting

VALID = "valid"  # phase of the scalars of the first place
MAX_PLACES = 4  # of a script that evaluates
MAX_FRAMES = 24  # of the stack that tell one place from another
FIRST_BATCHES = 64  # whose samples are all taken in
SHARE = 0.25  # of the later batches
ALL_OF = 0.5  # share of trained samples that tells an evaluation of the training data from one of others

AddScalar = Callable[[str, int, float, str], None]
Place = tuple[object, ...]


@dataclass
class _Evaluation:
    """What is added up of one place until the next step ends."""

    step: int
    loss: Tensor  # sum over samples
    num: float = 0.0  # samples
    task: Task | None = None
    num_classes: int = 0
    numbers: Tensor | None = None  # of the outcomes


@dataclass(eq=False)
class _Place:
    """One place of the script that evaluates."""

    order: int
    phase: str = ""  # of its scalars, once it is named
    open: _Evaluation | None = None
    samples: SampleSet = field(default_factory=SampleSet)


class EvaluationFacts:
    """Told of forwards, of losses without gradients, and of steps that end."""

    def __init__(self, table: FactTable, add_scalar: AddScalar) -> None:
        self._table = table
        self._add_scalar = add_scalar
        self._places: dict[Place, _Place] = {}
        self._told: set[str] = set()  # names of scalars that somebody says
        self._pending: Tensor | None = None  # fingerprints of an evaluated batch whose loss has not come yet
        self._is_evaluating = False  # the last forward was without gradients
        self._num_trained = self._num_evaluated = 0  # batches
        self._trained = SampleSet()
        self._known_last: list[float] = []  # share of samples that had been seen, of the last batches
        self._num_pairs = self._num_equal_pairs = 0.0  # of samples of one batch
        self._has_changed = False
        self._numbers = Waiting[tuple[_Place, _Evaluation]]()
        self._prints = Waiting[_Place | None]()  # None: of training

    def add_told(self, name: str) -> None:
        """Say no more what somebody says by this name."""
        self._told.add(name)

    def enter(self, inputs: object, *, is_recorded: bool) -> None:
        """Take note of the samples that a forward begins with."""
        self._is_evaluating = not torch.is_grad_enabled()
        self._pending = None
        if self._is_evaluating:
            number, self._num_evaluated = self._num_evaluated, self._num_evaluated + 1
            if number < FIRST_BATCHES or is_looked_at(number, SHARE):
                self._pending = _prints_of(inputs)
        elif is_recorded:
            number, self._num_trained = self._num_trained, self._num_trained + 1
            if number < FIRST_BATCHES or is_looked_at(number, SHARE):
                prints = _prints_of(inputs)
                if prints is not None:
                    self._prints.add(None, prints)

    def add(self, call: LossCall, step: int) -> None:
        """Add up a loss without gradients after a forward without."""
        if not self._is_evaluating:
            return
        place = self._place()
        if place is None:
            return
        if self._pending is not None:
            self._prints.add(place, self._pending)
            self._pending = None
        outputs, result = call.outputs, call.result
        if not isinstance(result, Tensor) or not is_measurable(result) or not isinstance(outputs, Tensor):
            return
        if place.open is None:
            zero = torch.zeros((), dtype=torch.float64, device=result.device)
            place.open = _Evaluation(max(step - 1, 0), zero)
        self._add_up(place.open, call, result.detach(), num_samples(outputs))

    def _add_up(self, one: _Evaluation, call: LossCall, result: Tensor, num: int) -> None:
        total = result.to(torch.float64).sum()
        one.loss = one.loss + total * (num / result.numel() if call.reduction != "sum" else 1.0)
        one.num += num
        outcome = outcome_of([call])
        if outcome is None or outcome.task is Task.NUMBERS:
            return
        if one.numbers is None:
            one.task, one.num_classes, one.numbers = outcome.task, outcome.num_classes, outcome.numbers
        elif (one.task, one.num_classes) == (outcome.task, outcome.num_classes):
            one.numbers = one.numbers + outcome.numbers

    def end_step(self) -> None:
        """Let what was evaluated since the last step wait on its device."""
        for place in self._places.values():
            if place.open is not None:
                one, place.open = place.open, None
                numbers = [one.loss.reshape(1), *([] if one.numbers is None else [one.numbers.double()])]
                self._numbers.add((place, one), torch.cat(numbers))

    def drain(self, *, waits: bool = True) -> None:
        """Say what came of evaluations."""
        for place, prints in self._prints.take(waits=waits):
            self._has_changed = True
            if place is None:
                self._take_trained(prints)
            else:
                place.samples.add(prints)
        done = self._numbers.take(waits=waits)
        self._name([place for (place, _), _ in done if not place.phase])
        for (place, one), numbers in done:
            self._say(place, one, float(numbers[0]), numbers[1:])
        if self._has_changed:
            self._has_changed = False
            self._note_samples()

    def _take_trained(self, prints: Floats) -> None:
        num = len(prints)
        self._num_pairs += num * (num - 1) / 2
        _, counts = np.unique(prints, return_counts=True)
        self._num_equal_pairs += float((counts * (counts - 1)).sum()) / 2
        num_kept = int((prints < self._trained.limit).sum())
        num_known = self._trained.add(np.unique(prints))
        if num_kept:
            self._known_last = [*self._known_last[-15:], num_known / num_kept]

    def _name(self, places: list[_Place]) -> None:
        """Give phases to new places: "valid" to the one with the fewest samples that were trained on."""
        names = {place.phase for place in self._places.values()}
        overlap = {id(place): place.samples.share_in(self._trained)[0] > ALL_OF for place in places}
        for place in sorted(dict.fromkeys(places), key=lambda one: (overlap[id(one)], one.order)):
            if place.phase:
                continue
            place.phase = VALID if VALID not in names else f"{VALID} {len(names - {''}) + 1}"
            names.add(place.phase)

    def _say(self, place: _Place, one: _Evaluation, loss: float, numbers: Floats) -> None:
        data: dict[str, Value] = {"samples": one.num, "classes": float(one.num_classes)}
        told = self._told if place.phase == VALID else set()
        if "loss" not in told and one.num:
            self._add_scalar("loss", one.step, loss / one.num, place.phase)
        num = float(numbers[Part.SAMPLES]) if len(numbers) else 0.0
        if one.task is not None and num and _is_classification(one.task, numbers):
            if "accuracy" not in told:
                self._add_scalar("accuracy", one.step, float(numbers[Part.CORRECT]) / num, place.phase)
            data["judged"] = num
            data["confusion"] = numbers[num_parts(one.task) :].tolist()
        self._table.look(FactKind.EVALUATION, one.step)
        self._table.note(FactKind.EVALUATION, place.phase, one.step, **data)

    def _note_samples(self) -> None:
        """Note how many of the evaluated samples were trained on."""
        known = float(np.mean(self._known_last)) if self._known_last else 0.0
        for place in self._places.values():
            share, num = place.samples.share_in(self._trained)
            back, _ = self._trained.share_in(place.samples)
            fact = self._table.get(FactKind.EVALUATION, place.phase)
            if not num or fact is None:
                continue
            self._table.note(
                FactKind.SAMPLES, place.phase, fact.last_step,
                share=share, compared=float(num), share_of_trained=back, trained=float(len(self._trained)), known=known,
                equal_pairs=self._num_equal_pairs / max(self._num_pairs, 1.0),
            )  # fmt: skip

    def _place(self) -> _Place | None:
        """Return the place of the script that computes a loss now."""
        frames: list[object] = []
        frame = sys._getframe(1)
        while frame is not None and len(frames) < 2 * MAX_FRAMES:
            frames += [frame.f_code, frame.f_lineno]
            frame = frame.f_back  # type: ignore[assignment]
        key = tuple(frames)
        place = self._places.get(key)
        if place is None and len(self._places) < MAX_PLACES:
            place = self._places[key] = _Place(len(self._places))
        return place


def _is_classification(task: Task, numbers: Floats) -> bool:
    """Tell whether all targets were one class each; of several calls the shares are added up, so a single one tells."""
    return task is Task.CLASSES or bool(numbers[Part.ONE_HOT] >= 1.0)


def _prints_of(inputs: object) -> Tensor | None:
    """Return fingerprints of the samples of a forward's first tensor of numbers."""
    found = first_of(inputs)
    return None if found is None or found.ndim <= 1 else fingerprints(found)
