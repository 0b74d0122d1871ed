"""`repairs`: the first remedy that has a number is applied to the broken training, which is trained again: does it get well?

No idea of rules. Only settings of the training are applied (`SETTERS`); data and code are for people to mend.
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
}


@dataclass(frozen=True)
class Repaired:
    """One broken training, what was changed, and how it went then."""

    id: str
    seed: int
    rule: str
    target: str
    value: float
    metric: float
    goal: float

    @property
    def is_well(self) -> bool:
        """Whether the metric on unseen data reaches 95 % of the twins' mean."""
        return self.metric >= self.goal


def remedy_of(said: Sequence[Said]) -> tuple[str, str, float] | None:
    """Return rule, target and value of the first remedy of what is said first, if it is one that can be applied."""
    for _, target, value in said[0].remedies[:1] if said else ():
        if target in SETTERS and isinstance(value, (int, float)):
            return said[0].rule, target, float(value)
    return None


def repaired(job: Job, said: Sequence[Said], twins: Sequence[float]) -> Repaired | None:
    """Apply and train again; None where there is nothing that can be applied."""
    case, remedy = job.what, remedy_of(said)
    if remedy is None or not isinstance(case, Case):
        return None
    rule, target, value = remedy
    setting = make_setting(case, job.seed)
    if case.repair is None:
        SETTERS[target](setting, value)
    elif not case.repair(setting, target, value):
        return Repaired(job.id, job.seed, rule, target, value, float("nan"), float("inf"))
    outcome = outcome_of(setting, job.seed)
    return Repaired(job.id, job.seed, rule, target, value, outcome.test_metric, OF_THE_TWIN * float(np.mean(twins)))
