"""Set learning rate and momentum before every training batch, from schedules of progress.

No idea of the schedules' shapes: ``train/schedules.py`` has them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.momentum import momentum_of, set_momentum
from actograph.train.schedules import Schedule
from actograph.train.state import Phase


@dataclass
class ScheduleParams(Callback):
    """Let learning rate and momentum follow schedules during one fit; afterwards the optimizer has its own again.

    ``lr`` gives the rate of the group with the largest one; the other groups keep their ratio to it. ``momentum`` sets
    ``betas[0]`` in Adam's kind; a group without momentum stays without.
    """

    lr: Schedule | None = None
    momentum: Schedule | None = None
    _before: list[tuple[float, float | None]] = field(default_factory=list, init=False, repr=False)
    _ratios: list[float] = field(default_factory=list, init=False, repr=False)

    stage = Stage.CHANGE
    unique = True

    def before_fit(self, loop: Loop) -> None:
        """Keep the optimizer's own rates, and their ratios."""
        groups = loop.optimizer.param_groups
        self._before = [(group["lr"], momentum_of(group)) for group in groups]
        self._ratios = rate_ratios(groups)

    def before_batch(self, loop: Loop) -> None:
        """Set the rates for this batch."""
        progress = loop.progress
        if progress.phase is not Phase.TRAIN:
            return
        for group, ratio in zip(loop.optimizer.param_groups, self._ratios, strict=True):
            if self.lr is not None:
                group["lr"] = self.lr(progress.fraction) * ratio
            if self.momentum is not None:
                set_momentum(group, self.momentum(progress.fraction))

    def cleanup_fit(self, loop: Loop) -> None:
        """Give the optimizer its own rates back."""
        for group, (lr, momentum) in zip(loop.optimizer.param_groups, self._before, strict=False):
            group["lr"] = lr
            if momentum is not None:
                set_momentum(group, momentum)
        self._before = []  # empty before the first fit and after a clean-up: nothing to give back


def rate_ratios(groups: list[dict[str, Any]]) -> list[float]:
    """Return each group's rate relative to the largest one; 1 for all where every rate is 0.

    >>> rate_ratios([{"lr": 0.25}, {"lr": 1.0}])
    [0.25, 1.0]
    """
    largest = max(group["lr"] for group in groups)
    return [group["lr"] / largest if largest else 1.0 for group in groups]
