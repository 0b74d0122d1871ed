"""One training of a trial, recorded into the trial's folder: an ordinary run directory.

No idea of what is compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from actograph.callbacks.activation_stats import ActivationStats
from actograph.callbacks.gradient_stats import GradientStats
from actograph.callbacks.recorder import Recorder
from actograph.data.loaders import Loaders
from actograph.hooks.leaves import Select
from actograph.learner import DEFAULT_OPTIMIZER, Learner, OptimizerFactory
from actograph.rules.diagnose import diagnose
from actograph.runlog.view import RunView
from actograph.study.setup import Setup
from actograph.study.trial import Trial
from actograph.train.events import Callback
from actograph.train.metrics import Accuracy

BUDGET = 0.03  # of the step time, for recording where time is compared


def learner_for(
    setup: Setup,
    trial: Trial,
    folder: Path,
    *,
    model: nn.Module | None = None,
    loaders: Loaders | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    opt_func: OptimizerFactory = DEFAULT_OPTIMIZER,
    callbacks: Iterable[Callback] = (),
    budget: float | None = None,
    with_gradients: bool = False,
    with_output_gradients: bool = False,
    select: Select | None = None,
) -> Learner:
    """Put a Learner together whose fits are recorded into ``folder``; the study says which fit it is.

    Network and data are those of the setup, with the trial's seed, where none are given. ``budget`` is that of
    `ActivationStats`; ``with_gradients`` records the gradients by every layer's output, and each parameter's, too,
    ``with_output_gradients`` the first alone. ``select`` says which layers are recorded; None: all.
    """
    data = setup.open(trial.seed, batch_size) if loaders is None else loaders
    network = setup.build(trial.seed, data) if model is None else model
    stats: list[Callback] = [
        ActivationStats(
            select,
            budget=budget,
            out=folder,
            name=trial.variant,
            config={"variant": trial.variant, "seed": trial.seed, **trial.options},
            grad=with_gradients or with_output_gradients,
        )
    ]
    if with_gradients:
        stats.append(GradientStats(budget=budget))
    rate = setup.lr if lr is None else lr
    assert rate is not None, "the setup of a trial has a rate"
    return Learner(
        network,
        data,
        setup.loss_func,
        opt_func,
        lr=rate,
        metrics=[Accuracy()],
        callbacks=[*stats, *callbacks],
        device=setup.torch_device,
        defaults=[Recorder],
    )


def view_of(learner: Learner) -> RunView:
    """Return the run that a Learner of `learner_for` has recorded."""
    return learner.callbacks[ActivationStats].view


def result_of(learner: Learner) -> dict[str, Any]:
    """Return what every training of a study keeps: the last epoch's values, each epoch's, and what the rules found."""
    last = learner.recorder.epochs[-1]
    found = diagnose(view_of(learner)).findings
    return {
        "accuracy": last["accuracy"],
        "valid_loss": last["valid_loss"],
        "train_loss": last["train_loss"],
        "steps": int(last["step"]),
        "train_s": sum(epoch["time_s"] for epoch in learner.recorder.epochs),
        "epochs": learner.recorder.epochs,
        "findings": [{"rule": one.rule, "layer": one.layer, "step": one.first_step} for one in found],
    }


def fixed_samples(setup: Setup, num: int, *, of_valid: bool = False) -> tuple[Tensor, Tensor]:
    """Return the first ``num`` samples in the order of seed 0, on the device: x (n, ...) and y (n,).

    Fewer where there are fewer; of the training or of the validation data, and the same for every trial.
    """
    loaders = setup.open(0)
    xs, ys, found = [], [], 0
    for x, y in (loaders.valid if of_valid else loaders.train) or ():
        xs.append(x)
        ys.append(y)
        found += len(x)
        if found >= num:
            break
    device = setup.torch_device
    return torch.cat(xs)[:num].to(device), torch.cat(ys)[:num].to(device)
