"""Why not start with a high learning rate? Failures at once and after a warm-up, and the sharpness meanwhile.

No idea of processes or pages; what follows from the numbers is told in ``high_start_verdict.py``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from actograph.callbacks.schedule import ScheduleParams
from actograph.data.loaders import Loaders
from actograph.runlog.view import RunView
from actograph.study import high_start_verdict as verdict
from actograph.study.chapter import Chapter
from actograph.study.hessian import adam_bound, adam_preconditioner, sharpness
from actograph.study.high_start_verdict import (
    ABRUPT,
    BOOK_RATE,
    FAILED_ABOVE,
    HIGH,
    LOW,
    NEAR_BOOK,
    SGD,
    STATS_STEP,
    STEPS,
    WARM,
    WARM_STEPS,
)
from actograph.study.setup import Setup
from actograph.study.study import Results, Study
from actograph.study.training import fixed_samples, learner_for, view_of
from actograph.study.trial import Trial, Values
from actograph.train.batches import length
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.optimizers import fused
from actograph.train.schedules import Schedule, constant, join, linear
from actograph.train.state import Phase

# fastai's default, the optimizer of the training that "didn't train at all well" (chapter 13): rate 0.06, batch 64
BETA1 = 0.9
ADAM = fused(torch.optim.AdamW, betas=(BETA1, 0.99), eps=1e-5, weight_decay=0.01)
PLAIN_SGD = fused(torch.optim.SGD)

WATCHED = "watched, "  # begins the names of variants along which the sharpness is measured
LAST_STEPS = 20  # whose mean loss decides
EXPLODED = 2.0  # times the same: a loss so large was once thrown away from where it was
SEEDS_FACTOR = 4  # short trainings are cheap, and a rate needs many: seeds of the setup times this
SGD_SEEDS_FACTOR = 2
FACTORS = (1.0, 3.0, HIGH, 12.0)  # rates over the setup's
SGD_FACTORS = (
    1 / 64,
    1 / 16,
    1 / 4,
    1.0,
    4.0,
)  # rates over 2 / sharpness at initialization, which soon rises
LOOKS = (0, 1, 2, 5, 10, 20, 40, 70)  # steps at which the sharpness is measured along a training
FIRST_LOOKS = (0, 1)
SAMPLES = 128  # of the training data, for the Hessian: the same for all


class HighStart(Study):
    """Constant high, constant low, and a warm-up to the high rate: failures, dead units, and the sharpness."""

    name = "high-start"
    question = "Why not start with a high learning rate?"
    textbook = (
        "The first weights are random and the loss is steep there; a warm-up first finds a smoother region."
    )
    default_epochs = 1  # not used: the trainings have a fixed number of steps

    def trials(self) -> Sequence[Trial]:
        """Return short trainings at each rate, at once and after a warm-up; a few are watched; and some with plain SGD."""
        rates = ladder(self.setup)
        watch = [(kind, HIGH) for kind in (ABRUPT, WARM)]
        return [
            *_trials(self.setup, SEEDS_FACTOR, [(ABRUPT, LOW), *((ABRUPT, one) for one in rates)]),
            *_trials(self.setup, SEEDS_FACTOR, [(WARM, one) for one in rates]),
            *_trials(self.setup, 1, watch, looks=LOOKS),
            *_trials(self.setup, SGD_SEEDS_FACTOR, [(SGD, one) for one in SGD_FACTORS]),
        ]

    def measure(self, trial: Trial, folder: Path) -> Values:
        """Train for `STEPS` steps; see whether it failed, and the sharpness at the trial's steps."""
        kind, factor = str(trial.options["kind"]), float(trial.options["factor"])
        assert self.setup.lr is not None
        loaders = self.setup.open(trial.seed)
        model = self.setup.build(trial.seed, loaders).to(self.setup.torch_device)
        x, y = fixed_samples(self.setup, SAMPLES)
        start = sharpness(model, self.setup.loss_func, x, y) if kind == SGD else math.nan
        lr = factor * 2 / start if kind == SGD else factor * self.setup.lr
        if not 0 < lr < math.inf:
            raise ValueError(
                f"the sharpness of the first weights is {start}: there is no rate to derive from it"
            )
        trail = SharpnessTrail(self.setup.loss_func, x, y, trial.options["looks"])
        classes = ClassCounts(loaders.num_classes or 0)
        learner = learner_for(
            self.setup, trial, folder, model=model, loaders=loaders, lr=lr,
            opt_func=PLAIN_SGD if kind == SGD else ADAM, callbacks=[trail, classes],
        )  # fmt: skip
        epochs, per_epoch = _split(loaders)
        learner.fit(epochs, steps=per_epoch, callbacks=[ScheduleParams(lr=schedule_of(kind, lr))])
        losses = learner.recorder.losses
        final = float(np.mean(losses[-LAST_STEPS:]))
        chance = classes.chance_loss(self.setup.label_smoothing)
        layers = layers_at(view_of(learner), STATS_STEP)
        is_stuck = not final < FAILED_ABOVE * chance  # NaN too
        is_broken = bool(layers["dead_layers"]) or not float(np.max(losses)) < EXPLODED * chance
        return {
            "lr": lr,
            "final_loss": final,
            "chance_loss": chance,
            "failed": is_stuck
            and (is_broken or kind != SGD),  # plain SGD is slow: it may only not have begun
            "diverged": not bool(np.isfinite(losses).all()),
            "start_sharpness": start,
            "trail": trail.seen,
            **layers,
        }

    def conclude(self, results: Results) -> Chapter:
        """Compare the failure rates, and the sharpness with the bounds."""
        return verdict.chapter(
            self.name, self.question, self.textbook, self.setup, results, _method(self.setup)
        )


def ladder(setup: Setup) -> list[float]:
    """Return the high rates over the setup's, ascending: the book's is among them."""
    assert setup.lr is not None
    book = BOOK_RATE / setup.lr
    near = any(abs(factor / book - 1) <= NEAR_BOOK for factor in FACTORS)
    return sorted(FACTORS if near else {*FACTORS, book})


def variant_of(kind: str, factor: float, lr: float) -> str:
    """Return the name of a variant, with its rate; SGD's depends on the seed."""
    return f"{kind} {factor:g} times 2 / sharpness" if kind == SGD else f"{kind} {factor * lr:.3g}"


def _trials(
    setup: Setup, factor: int, variants: Sequence[tuple[str, float]], looks: Sequence[int] = ()
) -> list[Trial]:
    assert setup.lr is not None
    made = []
    for kind, one in variants:
        first = FIRST_LOOKS if kind == ABRUPT and one == HIGH else ()
        options = {"kind": kind, "factor": one, "is_watched": bool(looks), "looks": list(looks or first)}
        name = f"{WATCHED if looks else ''}{variant_of(kind, one, setup.lr)}"
        made += [Trial(name, seed, options) for seed in range(factor * setup.seeds)]
    return made


def schedule_of(kind: str, lr: float) -> Schedule:
    """Return the rate over the progress: level, or a straight rise in the first `WARM_STEPS` steps and then level."""
    share = WARM_STEPS / STEPS
    return (
        join((share, linear(lr / WARM_STEPS, lr)), (1 - share, constant(lr)))
        if kind == WARM
        else constant(lr)
    )


def _split(loaders: Loaders) -> tuple[int, int]:
    """Return epochs, and steps in each, that make at least `STEPS` steps out of as few epochs as the data allow."""
    available = length(loaders.train)
    epochs = 1 if available is None else math.ceil(STEPS / available)
    return epochs, math.ceil(STEPS / epochs)


class SharpnessTrail(Callback):
    """Measure the sharpness of the loss of fixed samples before some of the steps, beside what Adam's stability allows.

    ``seen`` has for each: step, lr, sharpness, preconditioned (None before the first step and without Adam), bound.
    """

    stage = Stage.MEASURE  # after the schedule has set the rate

    def __init__(self, loss_func: nn.Module, x: Tensor, y: Tensor, looks: Sequence[int]) -> None:
        self.seen: list[dict[str, float | None]] = []
        self._measure = partial(sharpness, loss_func=loss_func, x=x, y=y)
        self._looks = frozenset(looks)

    def before_batch(self, loop: Loop) -> None:
        """Measure where it is one of the steps."""
        step = loop.progress.step
        if loop.progress.phase is not Phase.TRAIN or step not in self._looks:
            return
        (group,) = loop.optimizer.param_groups
        has_moved = step > 0 and "betas" in group
        told = (
            self._measure(loop.model, preconditioner=adam_preconditioner(loop.optimizer))
            if has_moved
            else None
        )
        bound = adam_bound(group["lr"], BETA1) if "betas" in group else 2 / group["lr"]
        self.seen.append(
            {
                "step": step,
                "lr": group["lr"],
                "sharpness": self._measure(loop.model),
                "preconditioned": told,
                "bound": bound,
            }
        )


class ClassCounts(Callback):
    """Count the classes of the training samples: how large the loss is of who knows nothing else."""

    stage = Stage.MEASURE

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._counts: Tensor | float = 0.0

    def after_loss(self, loop: Loop) -> None:
        """Add a training batch."""
        if loop.progress.phase is Phase.TRAIN:
            self._counts = self._counts + torch.bincount(loop.batch.y.flatten(), minlength=self._num_classes)

    def chance_loss(self, label_smoothing: float = 0.0) -> float:
        """Return the cross-entropy of always predicting the classes' shares, the least of any constant prediction."""
        assert isinstance(self._counts, Tensor)
        shares = (self._counts / self._counts.sum()).double().cpu().numpy()
        shares = (1 - label_smoothing) * shares + label_smoothing / len(shares)
        known = shares[shares > 0]
        return float(-(known * np.log(known)).sum())


def layers_at(view: RunView, step: int) -> dict[str, Any]:
    """Return near-zero share and dead units of the nonlinearities with a flat part, from the rows recorded at a step.

    Where there is none, the near-zero share is that of all layers, and there are no units that could be dead.
    """
    index = min(int(np.searchsorted(view.last_steps, step)), len(view.buckets) - 1)
    chosen = [position for position, info in enumerate(view.layers) if info.num_flags]
    near_zero = view.column("near_zero")[index, chosen or slice(None)]
    dead = [float(view.dead(position)[index].mean()) for position in chosen]
    return {
        "near_zero": float(np.nanmean(near_zero)) if np.isfinite(near_zero).any() else None,
        "dead_units": float(np.mean(dead)) if dead else None,
        "dead_layers": [view.layers[one].name for one, share in zip(chosen, dead, strict=True) if share == 1],
    }


def _method(setup: Setup) -> str:
    return (
        f"{STEPS} steps of {setup.told_model} on {setup.told_data}, batches of {setup.batch_size}, however many epochs were "
        f"asked for: failing shows early. AdamW with fastai's settings (betas {BETA1:g} and 0.99, eps 1e-5, weight decay "
        f"0.01); the warm-up rises in a straight line over {WARM_STEPS} steps. Failed: the mean loss of the last "
        f"{LAST_STEPS} steps is not below {FAILED_ABOVE:g} of that of always predicting the classes' shares, or not a "
        f"number. {SEEDS_FACTOR} times the asked-for seeds, Wilson intervals. Near-zero share (|x| ≤ 0.05) and dead units "
        f"(silent for 20 steps): of the layers that have a flat part, from the rows recorded at step {STATS_STEP}. "
        f"Sharpness: the largest eigenvalue of the Hessian of the mean loss of {SAMPLES} fixed training samples, in "
        "training mode, by Lanczos on Hessian-vector products. Bounds of stability on a quadratic: 2 / rate for plain "
        "SGD; for Adam (2 + 2 b) / ((1 - b) rate), b = 0.9, of the Hessian divided by Adam's sqrt(v) + eps (Cohen et al. "
        "2022). Plain SGD: no momentum, no decay, constant rate; as it may only be slow, it must also have a dead layer, or "
        f"a loss of {EXPLODED:g} times that of the shares, to count as failed; "
        f"{SGD_SEEDS_FACTOR} times the seeds."
    )
