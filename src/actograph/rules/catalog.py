"""`DEFAULT_RULES`: every rule that judges a run unless told otherwise.

No idea of how they judge. A rule joins this tuple with a sick run it catches, a healthy run it leaves alone and a near miss.
"""

from __future__ import annotations

from actograph.rules.dead_units import DeadUnits
from actograph.rules.loss_diverging import LossDiverging
from actograph.rules.loss_not_decreasing import LossNotDecreasing
from actograph.rules.non_finite_loss import NonFiniteLoss
from actograph.rules.rule import Rule
from actograph.rules.saturated_activations import SaturatedActivations

DEFAULT_RULES: tuple[Rule, ...] = (
    NonFiniteLoss(),
    DeadUnits(),
    SaturatedActivations(),
    LossDiverging(),
    LossNotDecreasing(),
)
