"""Read and set the momentum of an optimizer's parameter group, whichever name it has there.

No idea of schedules.
"""

from __future__ import annotations

from typing import Any


def momentum_of(group: dict[str, Any]) -> float | None:
    """Return ``betas[0]`` (Adam's kind) or ``momentum`` (SGD's kind); None where there is none, or it is off."""
    if "betas" in group:
        return float(group["betas"][0])
    return group.get("momentum") or None


def set_momentum(group: dict[str, Any], value: float) -> None:
    """Set what ``momentum_of`` reads; a group without momentum, or with 0, stays without."""
    if "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    elif group.get("momentum"):
        group["momentum"] = value
