"""What holds updates back other than a low learning rate: gradients that are clipped away, an epsilon that divides them.

No idea of rules; several ask.
"""

from __future__ import annotations

import numpy as np

from actograph.rules.updates import FEW, Updates
from actograph.runlog.facts import FactKind

LARGE_EPSILON = 1e-5  # defaults are 1e-8 (torch) and 1e-7 (Keras)
OF_THE_RATE = (
    0.05  # Adam's updates are 0.1 to 1 of the rate a weight where epsilon is not felt (Kingma, Ba 2015, 2.1)
)
CLIPPED_TO = 0.1  # of the norm: at the usual limits the median is 0.3 to 1


def epsilon_effect(updates: Updates) -> float | None:
    """Return the size of Adam's early updates a weight, as a share of the rate; None for others, or where not known."""
    size = updates.scalar("update_rms")
    if not updates.is_adaptive or not len(size):
        return None
    rates = updates.rate_at(size.steps)
    there = rates > 0
    shares = size.values[there] / rates[there]
    num = max(FEW, len(shares) // 10)
    return float(np.median(shares[:num])) if len(shares) else None


def held_by_epsilon(updates: Updates) -> bool:
    """Tell whether Adam's epsilon is larger than its gradients, so that it divides them by a constant."""
    effect = epsilon_effect(updates)
    if effect is None or updates.settings is None:
        return False
    return updates.settings.number("eps") >= LARGE_EPSILON and effect < OF_THE_RATE


def clipped_share(updates: Updates) -> float | None:
    """Return the median of what clipping leaves of the gradients' norm; None where nothing is clipped or it is not known."""
    ratio = updates.scalar("clip_ratio")
    return float(np.median(ratio.values)) if len(ratio) >= FEW else None


def clip_limit(updates: Updates) -> tuple[str, float] | None:
    """Return by what gradients are clipped, "norm" or "value", and the limit; None where that was not seen."""
    found = updates.view.facts.of(FactKind.CLIPPING)
    return (found[-1].subject, found[-1].number("limit")) if found else None


def held_by_clipping(updates: Updates) -> bool:
    """Tell whether clipping takes nearly all of the gradients from an optimizer whose updates follow their size."""
    share = clipped_share(updates)
    return share is not None and share < CLIPPED_TO and not updates.is_adaptive
