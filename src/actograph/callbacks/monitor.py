"""`Monitor`: read one of the epoch's values and tell whether it is better than another.

No idea of what follows from that: `EarlyStopping` and others decide.
"""

from __future__ import annotations

import difflib
import math
from typing import Literal, TypeAlias, get_args

from actograph.errors import UsageError
from actograph.train.loop import Loop
from actograph.train.metrics import LOSSES

Mode: TypeAlias = Literal["min", "max"]

# Words of a name in snake case; torchmetrics' classes have the same in theirs.
_LOWER_IS_BETTER = {"loss", "error", "mae", "mse", "rmse", "perplexity"}
_HIGHER_IS_BETTER = {"accuracy", "top", "f1", "precision", "recall", "auroc", "auc", "r2", "dice", "iou"}


class Monitor:
    """Watch the value ``name`` of each epoch: a loss or a metric.

    ``mode`` says whether the lowest ("min") or the highest ("max") is best; None: what the name tells. Only a change of
    more than ``min_delta`` counts as better. A UsageError says that the name does not tell, or what is wrong with a value.

    >>> monitor = Monitor("valid_loss", min_delta=0.1)
    >>> monitor.is_better(0.8, than=1.0), monitor.is_better(0.95, than=1.0)
    (True, False)
    """

    def __init__(self, name: str, mode: Mode | None = None, min_delta: float = 0.0) -> None:
        if mode is not None and mode not in get_args(Mode):
            raise UsageError(
                f"mode={mode!r}: choose 'min' or 'max', or None where the name tells which is better"
            )
        if not min_delta >= 0:
            raise UsageError(f"min_delta={min_delta}: give the smallest change that counts, 0 or more")
        self.name = name
        self.mode: Mode = mode or mode_of(name)
        self.min_delta = min_delta

    @property
    def worst(self) -> float:
        """What every number is better than."""
        return math.inf if self.mode == "min" else -math.inf

    def is_better(self, value: float, *, than: float) -> bool:
        """Tell whether ``value`` is better than another by more than ``min_delta``; NaN never is."""
        gain = than - value if self.mode == "min" else value - than
        return gain > self.min_delta

    def check(self, loop: Loop) -> None:
        """Raise UsageError where it is plain before the fit that no epoch will have the value."""
        measured = loop.metrics if loop.valid_loader is not None else ()
        losses = LOSSES if loop.valid_loader is not None else LOSSES[:1]
        if self.name not in losses and not any(self.name.startswith(name) for name in measured):
            raise UsageError(_unknown(self.name, (*losses, *measured), loop))

    def read(self, loop: Loop) -> float | None:
        """Return the epoch's value; None where the fit was stopped inside the epoch, or all batches were skipped.

        A UsageError names what there is instead.
        """
        values = loop.values
        if not loop.is_epoch_whole:
            return None  # a part of an epoch says little
        if self.name not in (*values, *LOSSES) and loop.valid_loss.count:
            raise UsageError(_unknown(self.name, tuple(values), loop))
        return values.get(self.name)


def mode_of(name: str) -> Mode:
    """Return "min" or "max" for the names of well-known losses and metrics.

    A UsageError says that the name does not tell.

    >>> mode_of("train_loss"), mode_of("multiclass_f1_score")
    ('min', 'max')
    """
    words = set(name.lower().split("_"))
    if words & _LOWER_IS_BETTER:
        return "min"
    if words & _HIGHER_IS_BETTER:
        return "max"
    raise UsageError(
        f"is a low or a high {name!r} better? The name does not tell: give mode='min' or mode='max'"
    )


def _unknown(name: str, there: tuple[str, ...], loop: Loop) -> str:
    close = difflib.get_close_matches(name, there, n=1)
    if name in loop.metrics:
        return f"{name} has more than one number and cannot be monitored; there are: {', '.join(there)}"
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(there)}"
    missing = "" if loop.valid_loader is not None else " (and there is no valid loader)"
    return f"an epoch has no value {name!r}{missing}: {hint}"
