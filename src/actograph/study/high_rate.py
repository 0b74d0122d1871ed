"""What does a high learning rate buy? One cycle to each of a ladder of peaks, and constant rates, at several budgets.

No idea of sentences: ``high_rate_verdict.py`` concludes.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from actograph.callbacks.schedule import ScheduleParams
from actograph.study import high_rate_verdict as verdict
from actograph.study.chapter import Chapter
from actograph.study.high_rate_results import CONSTANT, CYCLE, HIGH, LOW, Runs
from actograph.study.setup import Setup
from actograph.study.study import Results, Study
from actograph.study.training import fixed_samples, learner_for
from actograph.study.trial import Trial, Values
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.schedules import Schedule, constant, join, linear

PEAKS = (LOW, 0.3, 1.0, HIGH, 10.0, 30.0)  # rates over the setup's: half decades, up to where trainings fail
CONSTANTS = (LOW, 0.3, 1.0, HIGH)  # higher constant rates learned nothing on the digits
BUDGET_SHARES = (0.25, 0.5, 1.0)  # of the epochs asked for
RISE = 0.1  # of the steps: constant rates above the setup's are reached in a line from that
SEEDS_FACTOR = (
    3  # trainings of the least budget are cheap, and a failure rate needs many: seeds of the setup times this
)
SAMPLES = 1000  # at most, of the training and as many of the validation data, for the gap between them
FAILED_ABOVE = 0.95  # of the loss of who knows the classes' shares only, as in ``high_start``


class HighRate(Study):
    """A ladder of peak rates with one cycle at three budgets, beside constant rates: accuracy, gap, steps, failures."""

    name = "high-rate"
    question = "What does a high learning rate buy?"
    textbook = (
        "Large steps train faster and find flatter minima, which generalize better: with one cycle to a high rate a "
        "network converges many times sooner (super-convergence)."
    )
    default_epochs = 4

    def trials(self) -> Sequence[Trial]:
        """Return one cycle for each budget and peak, most often with the least budget, and the constant rates."""
        assert self.setup.epochs is not None
        budgets, seeds = budgets_of(self.setup.epochs), self.setup.seeds
        many = SEEDS_FACTOR * seeds if len(budgets) > 1 else seeds
        trials = []
        for budget in budgets:
            for peak in PEAKS:
                trials += self._trainings(CYCLE, peak, budget, many if budget == budgets[0] else seeds)
        for rate in CONSTANTS:
            trials += self._trainings(CONSTANT, rate, self.setup.epochs, self.setup.seeds)
        return trials

    def _trainings(self, kind: str, factor: float, epochs: int, num_seeds: int) -> list[Trial]:
        assert self.setup.lr is not None
        options = {"kind": kind, "factor": factor, "epochs": epochs}
        name = f"{kind} {factor * self.setup.lr:.3g}, {epochs} epochs"
        return [Trial(name, seed, options) for seed in range(num_seeds)]

    def measure(self, trial: Trial, folder: Path) -> Values:
        """Train, and look at both losses on equal footing after each epoch."""
        assert self.setup.lr is not None
        lr, epochs = trial.options["factor"] * self.setup.lr, int(trial.options["epochs"])
        x, y = fixed_samples(self.setup, SAMPLES)
        valid_x, valid_y = fixed_samples(self.setup, SAMPLES, of_valid=True)
        num = min(len(x), len(valid_x))
        footing = Footing(
            self.setup.loss_func,
            {"train": (x[:num], y[:num]), "valid": (valid_x[:num], valid_y[:num])},
            self.setup.batch_size,
        )
        learner = learner_for(self.setup, trial, folder, lr=lr, callbacks=[footing])
        if trial.options["kind"] == CYCLE:
            learner.fit_one_cycle(epochs)
        else:
            learner.fit(epochs, callbacks=[ScheduleParams(lr=held(lr, self.setup.lr))])
        looks = [
            {**look, "accuracy": epoch["accuracy"], "shown_gap": epoch["valid_loss"] - epoch["train_loss"]}
            for look, epoch in zip(footing.seen, learner.recorder.epochs, strict=True)
        ]
        chance = chance_loss(self.setup.loss_func, y[:num])
        return {
            "lr": lr,
            "looks": looks,
            "num_samples": num,
            "chance_loss": chance,
            "failed": not looks[-1]["train_loss"] < FAILED_ABOVE * chance,  # NaN too
        }

    def conclude(self, results: Results) -> Chapter:
        """Compare peaks, budgets and the constant rates, seeds paired."""
        assert self.setup.epochs is not None
        assert self.setup.lr is not None
        runs = Runs(results, self.setup.lr, budgets_of(self.setup.epochs))
        return verdict.chapter(
            self.name, self.question, self.textbook, runs, _method(self.setup), results.failures
        )


def held(lr: float, safe: float) -> Schedule:
    """Return a constant rate; one above ``safe`` is reached from there, so that it does not fail by its start alone."""
    return join((RISE, linear(min(lr, safe), lr)), (1 - RISE, constant(lr)))


def budgets_of(epochs: int) -> list[int]:
    """Return the numbers of epochs that are trained, rising.

    >>> budgets_of(4), budgets_of(1)
    ([1, 2, 4], [1])
    """
    return sorted({max(int(share * epochs), 1) for share in BUDGET_SHARES})


class Footing(Callback):
    """Measure the loss of fixed samples of both kinds after each epoch, in evaluation mode: what the gap is between.

    ``seen`` has for each epoch: step, and train_loss and valid_loss.
    """

    stage = Stage.MEASURE

    def __init__(
        self, loss_func: nn.Module, samples: dict[str, tuple[Tensor, Tensor]], batch_size: int
    ) -> None:
        self.seen: list[dict[str, float]] = []
        self._loss_func, self._samples, self._batch_size = loss_func, samples, batch_size

    def after_epoch(self, loop: Loop) -> None:
        """Measure both."""
        model = copy.deepcopy(loop.model).eval()  # without hooks: nothing is recorded
        losses = {f"{name}_loss": self._loss(model, x, y) for name, (x, y) in self._samples.items()}
        self.seen.append({"step": loop.progress.step, **losses})

    def _loss(self, model: nn.Module, x: Tensor, y: Tensor) -> float:
        with torch.no_grad():
            logits = torch.cat([model(part) for part in torch.split(x, self._batch_size)])
            return float(self._loss_func(logits, y))


def chance_loss(loss_func: nn.Module, y: Tensor) -> float:
    """Return the loss of always predicting the classes' shares among the labels y (n,)."""
    shares = torch.bincount(y.flatten()).double() / y.numel()
    logits = shares.clamp_min(1e-12).log().expand(y.numel(), -1)  # a class that none has: no infinity
    return float(loss_func(logits, y.flatten()))


def _method(setup: Setup) -> str:
    assert setup.lr is not None
    assert setup.epochs is not None
    budgets = ", ".join(map(str, budgets_of(setup.epochs)))
    return (
        f"{setup.told_model} on {setup.told_data}, AdamW (weight decay 0.01), batches of {setup.batch_size}; one cycle to "
        f"{', '.join(f'{one * setup.lr:.3g}' for one in PEAKS)} over {budgets} epochs (rise over the first quarter from "
        "1/25 of the peak, fall to 1e-5 of it, momentum the other way), the least budget with "
        f"{SEEDS_FACTOR} times the seeds where there are several; constant rates "
        f"{', '.join(f'{one * setup.lr:.3g}' for one in CONSTANTS)}, read after as many epochs, those above "
        f"{setup.lr:.3g} reached from there in the first {100 * RISE:g} % of the steps. Seeds have the same first "
        "weights and batches in all; differences are between equal seeds, and those told together share the 5 % of "
        f"error. Gap: validation loss minus training loss, both of up to {SAMPLES} fixed samples each, in evaluation mode "
        f"after the epoch. Failed: that training loss does not end below {FAILED_ABOVE:g} of that of always predicting "
        "the classes' shares, or is not a number; Wilson intervals. Accuracy is seen at the end of epochs only, so that "
        "steps to a target are whole epochs. Peaks of which a training failed are not called level with the best; seeds "
        "without a training loss that both had are left out of the comparison at equal training loss. That constant "
        "rates rise first, and these two rules, were chosen after a look at trainings on these data."
    )
