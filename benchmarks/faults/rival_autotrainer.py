"""AutoTrainer's rules (Zhang et al., ICSE 2021) as plain functions of a recorded run, with the published defaults.

No idea of cases. Source: ``utils/monitor.py`` of its repository, in words, not in code. It looks at the end of each epoch
and stops at the first problem; here each evaluation is the end of an epoch. It names no layer.

What differs: the accuracy of the training data is not recorded, so that of the evaluation stands for both; of a regression
R^2 stands for the accuracy. Gradients are those of the last recorded step before an evaluation instead of the first batch.
Not here: whether the loss fits the output by its name (IL), which needs the script; overfitting, which it computes and does
not report.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from actograph.layout.parameter import ParameterField
from actograph.layout.row import Field, Floats
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView
from faults.said import Said

# What each problem may mean: the rule ids of the causes that its papers give, and of those its repairs are for
CAUSES: dict[str, tuple[str, ...]] = {
    "AD": ("inputs-not-normalized", "targets-not-scaled", "initialization-too-large"),
    "IL": ("loss-sign-flipped", "wrong-loss"),
    "GE": (
        "exploding-gradients", "non-finite-loss", "learning-rate-too-high", "missing-warmup", "initialization-too-large",
        "inputs-not-normalized", "targets-not-scaled", "summed-loss", "fp16-overflow", "non-finite-input", "loss-diverging",
    ),
    "IO": ("softmax-before-cross-entropy", "wrong-loss"),
    "DR": ("dead-units", "fp16-underflow"),
    "GV": ("vanishing-gradients", "initialization-too-small", "saturated-activations", "fp16-underflow"),
    "SC": ("loss-not-decreasing", "learning-rate-too-low", "learning-rate-decayed-early", "constant-initialization"),
    "OL": ("learning-rate-too-high", "momentum-too-high", "batch-too-small"),
}  # fmt: skip

VANISHING_RATIO, VANISHING_NORM = (
    1e-3,
    1e-4,
)  # first kernel's gradient norm by the last one's, and by itself: beta_1, beta_2
EXPLODING_RATIO = 70.0  # beta_3
ZERO_SHARE = 0.7  # of all gradient entries: gamma
SWING, SWING_SHARE = 0.03, 0.2  # of the accuracy, and of the epochs: zeta, eta
SLOW_GAIN = 0.01  # of the accuracy from epoch to epoch: delta
GOOD_ACCURACY = 0.6  # Theta
LARGE_LOSS = 1e3
LARGE_OUTPUT = 10.0  # mean |output| of a layer that is not the last: omega_1
JUDGED_FROM = 0.3  # of the epochs: accuracies are not looked at before
NONLINEAR = (
    "relu",
    "softmax",
    "logsoftmax",
    "sigmoid",
    "tanh",
    "gelu",
    "elu",
    "silu",
)  # last layers that give no logits


@dataclass(frozen=True)
class Epochs:
    """The evaluations so far: losses and accuracies (E,)."""

    steps: Floats
    train_losses: Floats  # mean of the steps since the evaluation before
    valid_losses: Floats
    accuracies: Floats
    num_in_all: int

    def until(self, num: int) -> Epochs:
        """Return the first of them."""
        series = (self.steps, self.train_losses, self.valid_losses, self.accuracies)
        return Epochs(*(values[:num] for values in series), self.num_in_all)

    @property
    def is_judged(self) -> bool:
        """Whether there are enough of them to look at accuracies."""
        return len(self.steps) >= JUDGED_FROM * self.num_in_all


def autotrainer(view: RunView) -> list[Said]:
    """Return the problems of the first evaluation that has any; it stops there to repair them."""
    epochs = epochs_of(view)
    for num in range(1, len(epochs.steps) + 1):
        found = list(dict.fromkeys(problems(view, epochs.until(num))))
        if found:
            return [
                Said(problem, None, int(epochs.steps[num - 1]), causes=CAUSES[problem]) for problem in found
            ]
    return []


def problems(view: RunView, epochs: Epochs) -> Iterator[str]:
    """Yield what it finds at the last of the evaluations. All but AD, IL and what is not finite is gated by accuracy."""
    step = int(epochs.steps[-1])
    if has_large_output(view, step):
        yield "AD"
    if has_negative_loss(epochs):
        yield "IL"
    if has_large_loss(epochs) or has_non_finite(view, step):
        yield "GE"
    if not epochs.is_judged:
        return
    is_poor, is_slow = epochs.accuracies.max() < GOOD_ACCURACY, is_slowly_convergent(epochs)
    if is_poor or is_slow:
        if has_improper_output(view):
            yield "IO"
        elif has_dying_relus(view, step):
            yield "DR"
        elif has_exploding_gradients(view, step):
            yield "GE"
        elif has_vanishing_gradients(view, step):
            yield "GV"
        elif is_poor and is_slow:
            yield "SC"
    if is_oscillating(epochs):
        yield "IO" if has_improper_output(view) else "OL"


def has_large_output(view: RunView, step: int) -> bool:
    """AD: the mean |output| of a layer other than the last is 10 or more."""
    at = int(np.searchsorted(view.first_steps, step, "right")) - 1
    if at < 0 or len(view.layers) < 2:
        return False
    rows = view.rows[at, :-1]
    total = (
        rows[:, Field.POS_COUNT] * rows[:, Field.POS_MEAN]
        - rows[:, Field.NEG_COUNT] * rows[:, Field.NEG_MEAN]
    )
    num = rows[:, [Field.POS_COUNT, Field.NEG_COUNT, Field.ZEROS]].sum(axis=1)
    return bool((total >= LARGE_OUTPUT * np.maximum(num, 1.0)).any())


def has_negative_loss(epochs: Epochs) -> bool:
    """IL: a loss below zero."""
    return bool((epochs.train_losses < 0).any() or (epochs.valid_losses < 0).any())


def has_large_loss(epochs: Epochs) -> bool:
    """GE: a loss of 1,000 or more, or one that is not finite."""
    losses = np.concatenate([epochs.train_losses, epochs.valid_losses])
    return bool((~np.isfinite(losses) | (losses >= LARGE_LOSS)).any())


def has_non_finite(view: RunView, step: int) -> bool:
    """GE: NaN or infinity in weights or gradients."""
    fields = (ParameterField.FIRST_NON_FINITE, ParameterField.FIRST_BAD_WEIGHTS)
    firsts = [view.parameters.first_step(name, what) for name in view.parameters.names for what in fields]
    return any(first is not None and first <= step for first in firsts)


def has_improper_output(view: RunView) -> bool:
    """IO: the output does not fit the loss. A cross-entropy takes logits here, so a nonlinear last layer is improper.

    It sums a row of the output, which has to be 1; logits are what softmax makes such a row of.
    """
    has_logits_loss = view.facts.of(FactKind.LABELS) or view.facts.of(FactKind.PROBABILITIES)
    last = view.layers[-1].kind.rpartition(" ")[2].lower() if view.layers else ""
    return bool(has_logits_loss) and last in NONLINEAR


def has_dying_relus(view: RunView, step: int) -> bool:
    """DR: 70 % or more of all entries of the gradients are exactly zero."""
    shares, sizes = _gradients(view, "grad_zeros", step, least_rank=1)
    return bool(len(shares)) and float((shares * sizes).sum() / sizes.sum()) >= ZERO_SHARE


def has_exploding_gradients(view: RunView, step: int) -> bool:
    """GE: the first kernel's gradient has more than 70 times the norm of the last one's."""
    norms, _ = _gradients(view, "grad_norm", step, least_rank=2)
    return len(norms) > 1 and norms[0] > EXPLODING_RATIO * norms[-1]


def has_vanishing_gradients(view: RunView, step: int) -> bool:
    """GV: the first kernel's gradient has less than a thousandth of the last one's norm, and less than 1e-4."""
    norms, _ = _gradients(view, "grad_norm", step, least_rank=2)
    return len(norms) > 1 and norms[0] < VANISHING_RATIO * norms[-1] and norms[0] < VANISHING_NORM


def is_slowly_convergent(epochs: Epochs) -> bool:
    """SC: the accuracy never gains 0.01 from one epoch to the next; so of a single epoch, as in the tool."""
    return bool(np.diff(epochs.accuracies).max(initial=0.0) < SLOW_GAIN)


def is_oscillating(epochs: Epochs) -> bool:
    """OL: a fifth of the epochs are swings: the n-th local maximum is 0.03 or more above the n-th local minimum."""
    before, here, after = epochs.accuracies[:-2], epochs.accuracies[1:-1], epochs.accuracies[2:]
    maxima = here[(here >= before) & (here >= after)]
    minima = here[(here <= before) & (here <= after)]
    num = min(len(maxima), len(minima))
    swings = int((maxima[:num] - minima[:num] >= SWING).sum())
    return swings > 0 and swings >= SWING_SHARE * len(epochs.accuracies)


def epochs_of(view: RunView) -> Epochs:
    """Return the evaluations of a run; none where it was never evaluated with a metric."""
    losses, metrics, train = view.scalar("loss", "valid"), view.scalar("metric", "valid"), view.scalar("loss")
    steps = np.intersect1d(losses.steps, metrics.steps)
    means, begin = [], -math.inf
    for step in steps:
        chosen = train.values[(train.steps > begin) & (train.steps <= step)]
        means.append(float(chosen.mean()) if len(chosen) else math.nan)
        begin = step
    chosen_losses = losses.values[np.isin(losses.steps, steps)]
    return Epochs(
        steps, np.array(means), chosen_losses, metrics.values[np.isin(metrics.steps, steps)], len(steps)
    )


def _gradients(view: RunView, name: str, step: int, *, least_rank: int) -> tuple[Floats, Floats]:
    """Return a statistic of each parameter's gradient at a step, and its number of entries, where there is a gradient."""
    parameters = view.parameters
    at = int(np.searchsorted(parameters.first_steps, step, "right")) - 1
    if at < 0:
        return np.zeros(0), np.zeros(0)
    values = parameters.column(name)[at]
    sizes = np.array([math.prod(one.shape) for one in parameters.parameters], np.float64)
    is_chosen = np.array(
        [len(one.shape) >= least_rank for one in parameters.parameters], np.bool_
    ) & np.isfinite(values)
    return values[is_chosen], sizes[is_chosen]
