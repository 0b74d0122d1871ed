"""Why end with a low learning rate? Four schedules of one length, and what the last tenth of each is like.

No idea of processes or pages.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim.swa_utils import update_bn

from actograph.callbacks.schedule import ScheduleParams
from actograph.show import words
from actograph.study import figures
from actograph.study.chapter import Chapter, Picture, Table
from actograph.study.estimate import Estimate, difference_of
from actograph.study.study import Results, Study, seeds_of
from actograph.study.tell import better, joined, share
from actograph.study.training import learner_for, result_of
from actograph.study.trial import Trial, Values
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.metrics import Accuracy
from actograph.train.schedules import Schedule, constant, cosine, join

STAY, COSINE, DROP, LOW = "stay high", "cosine to low", "drop at 75 %", "low throughout"
DROP_AT = 0.75  # of the steps
DROP_BY = 10.0
DIV_FINAL = 1e5  # as `fit_one_cycle`
TAIL = 0.1  # of the steps, at the end: what is looked at
AVERAGED = 0.25  # of the steps, at the end: whose weights are averaged


class LowEnd(Study):
    """Stay high, cosine to low, drop at 75 %, and low throughout: loss, accuracy and weights at the end."""

    name = "low-end"
    question = "Why end with a low learning rate?"
    textbook = "A low rate at the end lets the weights settle into the bottom of a minimum, so that accuracy is better."
    default_epochs = 6

    def trials(self) -> Sequence[Trial]:
        """Return one training for each schedule and seed."""
        return seeds_of(self.setup, [STAY, COSINE, DROP, LOW])

    def measure(self, trial: Trial, folder: Path) -> Values:
        """Train with the trial's schedule; see how the last steps move, and what their averaged weights are worth."""
        assert self.setup.lr is not None
        assert self.setup.epochs is not None
        trail = WeightTrail()
        learner = learner_for(self.setup, trial, folder, callbacks=[trail])
        learner.fit(
            self.setup.epochs, callbacks=[ScheduleParams(lr=schedule_of(trial.variant, self.setup.lr))]
        )
        losses = learner.recorder.losses
        tail = losses[-max(int(TAIL * len(losses)), 2) :]
        return {
            **result_of(learner),
            "loss_std": float(np.std(tail, ddof=1)),
            "distance": trail.distance,
            "path": trail.path,
            "averaged_accuracy": averaged_accuracy(learner.loop, trail.mean),
        }

    def conclude(self, results: Results) -> Chapter:
        """Compare each schedule with staying high, seeds paired."""
        names = results.variants
        columns = ["accuracy", "valid_loss", "loss_std", "distance", "averaged_accuracy"]
        rows = [[name, *(results.mean(name, column) for column in columns)] for name in names]
        heads = [
            "schedule",
            "accuracy",
            "validation loss",
            "std of the last losses",
            "distance moved",
            "averaged accuracy",
        ]
        accuracy = {name: results.mean(name, "accuracy") for name in names}
        averaged = {f"{name}, averaged": results.mean(name, "averaged_accuracy") for name in names}
        return Chapter(
            self.name,
            self.question,
            self.textbook,
            self._sentences(results),
            [Table("The end of each schedule, mean over the seeds with its 95 % interval", heads, rows)],
            [
                Picture(
                    figures.intervals(_in_turn(accuracy, averaged), "accuracy on the validation data"),
                    f"Accuracy at the end, and of the weights averaged over the last {share(AVERAGED)} of the steps.",
                    "Accuracy of each schedule with its interval, with and without averaging the weights",
                )
            ],
            f"{self.setup.epochs} epochs of {self.setup.told_model} on {self.setup.told_data}, AdamW, batches of "
            f"{self.setup.batch_size}, high rate {self.setup.lr:g}, low rate a tenth of it; the cosine ends at rate / "
            f"{DIV_FINAL:g}. The last {share(TAIL)} of the steps: standard deviation of the batches' losses; distance "
            "between the weights at its beginning and end, over their norm. Differences are between equal seeds.",
            results.failures,
            {name: {column: results.mean(name, column) for column in columns} for name in names},
        )

    def _sentences(self, results: Results) -> list[str]:
        if STAY not in results.variants:
            return [
                f"Nothing can be said: no training that stays high came through ({joined(results.failures)})."
            ]
        others = [name for name in (COSINE, DROP, LOW) if name in results.variants]
        looks = len(others)
        told = [
            better(
                f"“{name}”",
                f"“{STAY}”",
                results.difference(name, STAY, "accuracy", num_looks=looks),
                "accuracy",
            )
            for name in others
        ]
        return [*told, *self._about_moving(results, others), *self._about_averaging(results)]

    def _about_moving(self, results: Results, others: Sequence[str]) -> list[str]:
        moved = {name: results.mean(name, "distance") for name in (STAY, *others)}
        far, near = moved[STAY], min((moved[name] for name in others), key=lambda one: one.value)
        least = next(name for name in others if moved[name] is near)
        told = [
            f"In the last {share(TAIL)} of the steps staying high moves the weights by {share(far.value)} of their norm, "
            f"“{least}” by {share(near.value)}"
            + ("." if not far.overlaps(near) else ", which the seeds do not tell apart.")
        ]
        noise = results.difference(STAY, least, "loss_std")
        ratio = results.mean(STAY, "loss_std").value / results.mean(least, "loss_std").value
        if noise.excludes_zero:
            told.append(
                f"The losses of its last batches spread {words.number(ratio)} times as far as those of “{least}”: "
                + (
                    "the noise of the steps is part of the loss at a high rate."
                    if ratio > 1
                    else "the low end is the noisier."
                )
            )
        else:
            told.append("How far the losses of the last batches spread does not tell the two apart.")
        return told

    def _about_averaging(self, results: Results) -> list[str]:
        gain = results_gain(results, STAY)
        rest = results.difference(COSINE, STAY, "accuracy") if COSINE in results.variants else None
        sentence = better(
            f"The mean of the weights over the last {share(AVERAGED)} of the steps at the high rate",
            "its last weights",
            gain,
            "accuracy",
        )
        if (
            gain.excludes_zero
            and gain.value > 0
            and rest is not None
            and rest.excludes_zero
            and rest.value > 0
        ):
            sentence += (
                f" That is {share(gain.value / rest.value)} of what the cosine gains: most of the rate's fall can be had "
                "by averaging."
                if gain.value > rest.value / 2
                else f" That is {share(gain.value / rest.value)} of what the cosine gains."
            )
        return [sentence]


def results_gain(results: Results, name: str) -> Estimate:
    """Estimate what averaging the weights gives a schedule in accuracy, seed by seed."""
    return difference_of(results.by_seed(name, "averaged_accuracy"), results.by_seed(name, "accuracy"))


def schedule_of(variant: str, lr: float) -> Schedule:
    """Return the rate over the progress for one of the four schedules."""
    return {
        STAY: constant(lr),
        COSINE: cosine(lr, lr / DIV_FINAL),
        DROP: join((DROP_AT, constant(lr)), (1 - DROP_AT, constant(lr / DROP_BY))),
        LOW: constant(lr / DROP_BY),
    }[variant]


class WeightTrail(Callback):
    """Where the weights go at the end of a fit: their mean over the last quarter of the steps, the way of the last tenth.

    ``distance`` is that between the weights at the beginning and the end of the last tenth, ``path`` the way that was made
    from step to step; both over the norm of the last weights.
    """

    stage = Stage.MEASURE

    def __init__(self) -> None:
        self.mean: Tensor | None = None
        self._num_averaged = 0
        self._first: Tensor | None = None
        self._last: Tensor | None = None
        self._path = 0.0

    def after_step(self, loop: Loop) -> None:
        """Take the weights of a step of the last quarter in."""
        left = 1 - loop.progress.fraction
        if left > AVERAGED:
            return
        weights = parameters_to_vector(loop.model.parameters()).detach().clone()
        self._num_averaged += 1
        self.mean = weights.clone() if self.mean is None else self.mean.lerp_(weights, 1 / self._num_averaged)
        if left <= TAIL:
            if self._last is not None:
                self._path += float((weights - self._last).norm())
            self._first = weights if self._first is None else self._first
            self._last = weights

    @property
    def distance(self) -> float:
        """Distance between the first and the last weights of the last tenth, over the norm of the last."""
        assert self._first is not None
        assert self._last is not None
        return float((self._last - self._first).norm() / self._last.norm())

    @property
    def path(self) -> float:
        """Way from step to step in the last tenth, over the norm of the last weights."""
        assert self._last is not None
        return self._path / float(self._last.norm())


def averaged_accuracy(loop: Loop, weights: Tensor | None) -> float:
    """Return the accuracy on the validation data of a copy of the model with these weights, (parameters,)."""
    assert weights is not None
    model = copy.deepcopy(loop.model)
    vector_to_parameters(weights, model.parameters())
    with torch.no_grad():
        update_bn(
            loop.train_loader, model, loop.device
        )  # the means of the batch norms are those of other weights
        return accuracy_of(model.eval(), loop)


def accuracy_of(model: nn.Module, loop: Loop) -> float:
    """Return the share of the validation samples that the model takes for what they are."""
    metric = Accuracy()
    assert loop.valid_loader is not None
    for x, y in loop.valid_loader:
        metric.update(model(x.to(loop.device)), y.to(loop.device))
    return float(metric.compute())


def _in_turn(*tables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of the tables in turn: the first of each, the second of each, ..."""
    return dict(
        entry for entries in zip(*(table.items() for table in tables), strict=True) for entry in entries
    )
