"""Why end with a low learning rate? Four schedules at several high rates, and what the last tenth of each is like.

No idea of processes or pages; what follows from the numbers is told in ``low_end_verdict.py``.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.optim.swa_utils import update_bn

from actograph.callbacks.schedule import ScheduleParams
from actograph.study import low_end_verdict as verdict
from actograph.study.chapter import Chapter
from actograph.study.low_end_verdict import AVERAGED, COSINE, DROP, LOW, STAY, TAIL, variant_of
from actograph.study.setup import Setup
from actograph.study.study import Results, Study, seeds_of
from actograph.study.training import fixed_samples, learner_for, result_of
from actograph.study.trial import Trial, Values
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.metrics import Accuracy
from actograph.train.schedules import Schedule, constant, cosine, join, linear

FACTORS = (0.25, 1.0, 4.0)  # high rates over the setup's: too low, found, too high to end with
DROP_AT = 0.75  # of the steps
DROP_BY = 10.0
WARM = 0.1  # of the steps, in which every schedule rises: without it some seeds fail at the highest rate by its start alone
WARM_DIV = 25.0  # as `fit_one_cycle`
DIV_FINAL = 1e5  # as `fit_one_cycle`
FIXED_SAMPLES = (
    512  # of the training data, whose loss is measured along the last tenth without the noise of batches
)
NUM_LOOKS = 10  # at it


class LowEnd(Study):
    """Stay high, cosine to low, drop at 75 %, and low throughout, at several high rates."""

    name = "low-end"
    question = "Why end with a low learning rate?"
    textbook = "A low rate at the end lets the weights settle into the bottom of a minimum, so that accuracy is better."
    default_epochs = 5

    def trials(self) -> Sequence[Trial]:
        """Return one training for each high rate, schedule and seed."""
        assert self.setup.lr is not None
        variants = [
            (variant_of(schedule, factor * self.setup.lr), {"schedule": schedule, "factor": factor})
            for factor in FACTORS
            for schedule in (STAY, COSINE, DROP, LOW)
        ]
        return seeds_of(self.setup, variants)

    def measure(self, trial: Trial, folder: Path) -> Values:
        """Train with the trial's schedule; see how the last steps move, and what their averaged weights are worth."""
        assert self.setup.lr is not None
        assert self.setup.epochs is not None
        lr = trial.options["factor"] * self.setup.lr
        trail = WeightTrail(self.setup.loss_func, *fixed_samples(self.setup, FIXED_SAMPLES))
        learner = learner_for(self.setup, trial, folder, lr=lr, callbacks=[trail])
        schedule = schedule_of(trial.options["schedule"], lr)
        learner.fit(self.setup.epochs, callbacks=[ScheduleParams(lr=schedule)])
        losses = learner.recorder.losses
        tail = losses[-max(int(TAIL * len(losses)), 2) :]
        result = result_of(learner)
        averaged = averaged_accuracy(learner.loop, trail.mean)
        return {
            **result,
            "loss_std": float(np.std(tail, ddof=1)),
            "fixed_loss": float(np.mean(trail.losses)),
            "fixed_loss_std": float(np.std(trail.losses, ddof=1)) if len(trail.losses) > 1 else None,
            "distance": trail.distance,
            "path": trail.path,
            "averaged_accuracy": averaged,
            "averaging_gain": averaged - result["accuracy"],
        }

    def conclude(self, results: Results) -> Chapter:
        """Compare the ends at each high rate, seeds paired."""
        return verdict.chapter(self.name, self.question, self.textbook, results, _method(self.setup))


def _method(setup: Setup) -> str:
    assert setup.lr is not None
    rates = ", ".join(f"{factor * setup.lr:g}" for factor in FACTORS)
    return (
        f"{setup.epochs} epochs of {setup.told_model} on {setup.told_data}, AdamW, batches of {setup.batch_size}, high "
        f"rates {rates}. “{DROP}” and “{LOW}” divide the high rate by {DROP_BY:g}, the cosine ends at rate / "
        f"{DIV_FINAL:g}; all rise in the first {100 * WARM:g} % of the steps, from 1/{WARM_DIV:g}."
        f" The last {100 * TAIL:g} % of the steps: standard deviation of the batches' losses; of the loss "
        f"of {FIXED_SAMPLES} fixed training samples in evaluation mode, at {NUM_LOOKS} steps, which has no noise of "
        "batches; distance between the weights at the beginning and the end over their norm, and the way from step to "
        f"step. Averaged: the mean of the weights over the last {100 * AVERAGED:g} % of the steps, statistics of "
        "normalizations measured anew. Differences are between equal seeds; those of one kind over the rates share the "
        "5 % of error."
    )


def schedule_of(variant: str, lr: float) -> Schedule:
    """Return the rate over the progress for one of the four schedules; all rise to it in the same way."""
    after = {
        STAY: constant(lr),
        COSINE: cosine(lr, lr / DIV_FINAL),
        DROP: join((DROP_AT, constant(lr)), (1 - DROP_AT, constant(lr / DROP_BY))),
        LOW: constant(lr / DROP_BY),
    }[variant]
    rise = join((WARM, linear(1 / WARM_DIV, 1.0)), (1 - WARM, constant(1.0)))
    return lambda progress: rise(progress) * after(progress)


class WeightTrail(Callback):
    """Where the weights go at the end of a fit: their mean over the last quarter of the steps, the way of the last tenth.

    ``distance`` is that between the weights at the beginning and the end of the last tenth, ``path`` the way that was made
    from step to step; both over the norm of the last weights. ``losses`` are those of the fixed samples x, y, in evaluation
    mode, at up to `NUM_LOOKS` steps of the last tenth.
    """

    stage = Stage.MEASURE

    def __init__(self, loss_func: nn.Module, x: Tensor, y: Tensor) -> None:
        self.mean: Tensor | None = None
        self.losses: list[float] = []
        self._loss_func, self._x, self._y = loss_func, x, y
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
            if len(self.losses) < NUM_LOOKS * (1 - left / TAIL):
                self.losses.append(self._fixed_loss(loop.model))

    def _fixed_loss(self, model: nn.Module) -> float:
        copied = copy.deepcopy(model).eval()  # without hooks: nothing is recorded
        with torch.no_grad():
            return float(self._loss_func(copied(self._x), self._y))

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
