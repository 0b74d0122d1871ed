"""`repaired`: the first remedy that has a number is applied to the broken training, which is trained again: does it get well?

No idea of rules. Only settings of the training (`SETTERS`) and the size of first weights are applied; data and code are for
people to mend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from faults.case import Case
from faults.harm import OF_THE_TWIN
from faults.runner import Job, make_setting, outcome_of
from faults.score import Said
from faults.setting import Setting

Value = float


def _set_rate(setting: Setting, value: Value) -> None:
    setting.options["lr"] = value


def _set_option(name: str) -> Callable[[Setting, Value], None]:
    def apply(setting: Setting, value: Value) -> None:
        setting.options[name] = value

    return apply


def _set_momentum(setting: Setting, value: Value) -> None:
    if "momentum" in setting.options:
        setting.options["momentum"] = value
    else:
        setting.options["betas"] = (value, setting.options.get("betas", (0.9, 0.999))[1])


def _set_clip(setting: Setting, value: Value) -> None:
    setting.clip = value


def _set_batch_size(setting: Setting, value: Value) -> None:
    setting.batch_size = int(value)


def _set_dropout(setting: Setting, value: Value) -> None:
    for module in setting.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = value


def _set_warm_up(setting: Setting, value: Value) -> None:
    steps, old = max(int(value), 1), setting.schedule
    setting.schedule = lambda step: old(step) * min((step + 1) / steps, 1.0)


def _set_num_steps(setting: Setting, value: Value) -> None:
    setting.num_steps = max(int(value), 1)


SETTERS: dict[str, Callable[[Setting, Value], None]] = {  # by the target of a remedy
    "lr": _set_rate,
    "momentum": _set_momentum,
    "beta1": _set_momentum,
    "eps": _set_option("eps"),
    "weight_decay": _set_option("weight_decay"),
    "gradients": _set_clip,
    "batch_size": _set_batch_size,
    "dropout": _set_dropout,
    "warmup_steps": _set_warm_up,
    "num_steps": _set_num_steps,
}
INITIALISE = "initialise the weights"  # so begins the action of a remedy whose target is a parameter


@dataclass(frozen=True)
class Fix:
    """What is said first, and the targets and values of its first remedy: several where it is about several parameters."""

    rule: str
    values: tuple[tuple[str, Value], ...]

    def apply(self, setting: Setting) -> None:
        """Change the training."""
        for target, value in self.values:
            if target in SETTERS:
                SETTERS[target](setting, value)
            else:
                torch.nn.init.normal_(setting.model.get_parameter(target), std=value)

    def __str__(self) -> str:
        return ", ".join(f"{target} = {value:.3g}" for target, value in self.values)


@dataclass(frozen=True)
class Repaired:
    """One broken training, what was changed, and how it went then."""

    id: str
    seed: int
    fix: Fix
    metric: float
    goal: float

    @property
    def is_well(self) -> bool:
        """Whether the metric on unseen data reaches 95 % of the twins' mean."""
        return self.metric >= self.goal


def fix_of(said: Sequence[Said]) -> Fix | None:
    """Return the first remedy of what is said first, if it is one that can be applied."""
    if not said or not said[0].remedies:
        return None
    action, target, value = said[0].remedies[0]
    if not isinstance(value, (int, float)):
        return None
    if target in SETTERS:
        return Fix(said[0].rule, ((target, float(value)),))
    if not action.startswith(INITIALISE):
        return None
    alike = [one for one in said[0].remedies if one[0].startswith(INITIALISE) and isinstance(one[2], (int, float))]
    return Fix(said[0].rule, tuple((target, float(value)) for _, target, value in alike))


def repaired(job: Job, said: Sequence[Said], twins: Sequence[float]) -> Repaired | None:
    """Apply and train again; None where there is nothing that can be applied."""
    case, fix = job.what, fix_of(said)
    if fix is None or not isinstance(case, Case):
        return None
    setting = make_setting(case, job.seed)
    if case.repair is None:
        fix.apply(setting)
    elif not case.repair(setting, *fix.values[0]):
        return Repaired(job.id, job.seed, fix, float("nan"), float("inf"))
    outcome = outcome_of(setting, job.seed)
    return Repaired(job.id, job.seed, fix, outcome.test_metric, OF_THE_TWIN * float(np.mean(twins)))
