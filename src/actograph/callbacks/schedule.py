"""Set learning rate and momentum before every training batch, from schedules of progress.

No idea of the schedules' shapes: ``train/schedules.py`` has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.momentum import set_momentum
from actograph.train.rates import rate_ratios
from actograph.train.schedules import Schedule
from actograph.train.state import Phase


class RateCallback(Callback):
    """Change the settings of the optimizer's groups during one fit; afterwards it has its own again.

    Only one callback of this kind can run in a fit.
    """

    stage = Stage.CHANGE
    unique = True

    def cleanup_fit(self, loop: Loop) -> None:
        """Give the optimizer its own settings back."""
        for group, own in zip(loop.optimizer.param_groups, loop.own_groups, strict=False):
            for added in group.keys() - own.keys() - {"params"}:
                del group[added]
            group.update(own)


@dataclass
class ScheduleParams(RateCallback):
    """Let learning rate and momentum follow schedules of ``progress.schedule_fraction`` during one fit.

    They are set where a window of gathered batches begins. ``lr`` gives the rate of the group with the largest one;
    ``ratios`` are those of the groups to it, None keeps the optimizer's own. ``momentum`` sets ``betas[0]`` in Adam's
    kind; a group without momentum stays without.
    """

    lr: Schedule | None = None
    momentum: Schedule | None = None
    ratios: Sequence[float] | None = None
    _ratios: Sequence[float] = field(default=(), init=False, repr=False)

    def before_fit(self, loop: Loop) -> None:
        """Take the ratios of the optimizer's own rates, where none were given."""
        own = rate_ratios([group["lr"] for group in loop.optimizer.param_groups])
        self._ratios = own if self.ratios is None else self.ratios

    def before_batch(self, loop: Loop) -> None:
        """Set the rates for this batch, unless it belongs to an open window."""
        progress = loop.progress
        if progress.phase is not Phase.TRAIN or progress.num_gathered:
            return
        position = progress.schedule_fraction
        for group, ratio in zip(loop.optimizer.param_groups, self._ratios, strict=True):
            if self.lr is not None:
                group["lr"] = self.lr(position) * ratio
            if self.momentum is not None:
                set_momentum(group, self.momentum(position))
