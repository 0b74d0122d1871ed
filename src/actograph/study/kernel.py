"""Why a larger first kernel? 3, 5 and 7, each also with a first layer that does not learn, and 3 spread as wide as 5.

No idea of processes, pages or sentences: `kernel_words` has them, `windows` the mathematics.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from actograph.data.loaders import Loaders
from actograph.errors import UsageError
from actograph.models.table import layer_table
from actograph.runlog.view import RunView
from actograph.show import words
from actograph.study import kernel_words
from actograph.study.chapter import Chapter
from actograph.study.kernel_words import FROZEN
from actograph.study.study import Results, Study, seeds_of
from actograph.study.training import learner_for, result_of, view_of
from actograph.study.trial import Trial, Values
from actograph.study.windows import first_layer, measured_field, receptive_field

FAMILIES = ("simple_cnn", "simple_cnn_bn")
FIRST = "block1"  # of these families
TAIL = 0.1  # of the recorded steps, the last ones: whose statistics are told
NUM_IMAGES = 256  # training images whose windows are looked at: 50,000 windows of the digits

SMALL, USUAL, LARGE = (f"{side} {words.TIMES} {side}" for side in (3, 5, 7))
WIDE = f"{SMALL} spread over {USUAL}"
KERNELS = {SMALL: (3, 1), USUAL: (5, 1), LARGE: (7, 1), WIDE: (3, 2)}  # side, dilation


class FirstKernel(Study):
    """First kernels of 3, 5 and 7: what a window gives to the filters, what they keep of it, and what it is worth."""

    name = "kernel"
    question = "Why a larger first kernel?"
    textbook = (
        f"On one grey channel a {SMALL} kernel makes 8 numbers of 9 inputs, so that there is little to learn; {USUAL} makes "
        "them of 25."
    )
    default_epochs = 3

    def check(self) -> None:
        """Refuse networks whose first kernel cannot be set here."""
        if self.setup.model not in FAMILIES:
            raise UsageError(
                f"kernel varies the first convolution, and cannot in {self.setup.told_model}: give --model "
                f"{' or '.join(FAMILIES)}"
            )

    def trials(self) -> Sequence[Trial]:
        """Return a training of each kernel and seed, each size with a first layer that learns and one that does not."""
        return seeds_of(
            self.setup,
            [
                (name + ending, {"kernel": side, "dilation": dilation, "is_fixed": bool(ending)})
                for name, (side, dilation) in KERNELS.items()
                for ending in ("", FROZEN)
                if name != WIDE or not ending
            ],
        )

    def measure(self, trial: Trial, folder: Path) -> Values:
        """Train; look at the first layer before and after, and at its recorded rows."""
        assert self.setup.epochs is not None
        loaders = self.setup.open(trial.seed)
        kernel, dilation = trial.options["kernel"], trial.options["dilation"]
        model = self.build(kernel, dilation, trial.seed, loaders)
        images = next(iter(self.setup.open(0, NUM_IMAGES).train))[0]  # the same for all seeds
        before = copy.deepcopy(model.get_submodule(FIRST))
        first_conv(model).requires_grad_(not trial.options["is_fixed"])
        learner = learner_for(self.setup, trial, folder, model=model, loaders=loaders)
        learner.fit_one_cycle(self.setup.epochs)
        ends = {"start": before, "end": learner.model.get_submodule(FIRST)}
        looked_at: dict[str, float] = {}
        for when, block in ends.items():
            assert isinstance(block, nn.Sequential)
            looked_at |= {f"{name}_{when}": value for name, value in first_layer(block, images).items()}
        return {**result_of(learner), **looked_at, **recorded(view_of(learner))}

    def build(self, kernel: int, dilation: int, seed: int, loaders: Loaders) -> nn.Module:
        """Build the network with such a first kernel; spread kernels have the weights of those that are not."""
        model = self.setup.build(seed, loaders, first_kernel=kernel)
        conv = first_conv(model)
        conv.dilation = (dilation, dilation)
        conv.padding = (dilation * (kernel // 2),) * 2
        return model

    def conclude(self, results: Results) -> Chapter:
        """Say what follows."""
        loaders = self.setup.open()
        shapes = {name: self._shape(*kernel, loaders) for name, kernel in KERNELS.items()}
        return kernel_words.kernel_chapter(self, self.setup, results, shapes)

    def _shape(self, kernel: int, dilation: int, loaders: Loaders) -> dict[str, Any]:
        """Return what one image costs, and how far each convolution sees."""
        model = self.build(kernel, dilation, 0, loaders)
        assert loaders.input_size is not None
        table = layer_table(model, loaders.input_size)
        first = next(row for row in table.rows if row.window is not None)
        assert first.window is not None
        convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        return {
            "inputs": first.window.inputs,
            "filters": first.window.filters,
            "parameters": first.parameters,
            "all_parameters": table.parameters,
            "macs": first.macs,
            "all_macs": table.macs,
            "fields": receptive_field(convs),
            "measured_fields": measured_field(convs),
            "image": loaders.input_size[-1],
        }


def first_conv(model: nn.Module) -> nn.Conv2d:
    """Return the first convolution of one of the families."""
    conv = model.get_submodule(f"{FIRST}.conv")
    assert isinstance(conv, nn.Conv2d)
    return conv


def recorded(view: RunView) -> dict[str, float | None]:
    """Return the first activation's share of dead units and of values near zero, and its std, over the last tenth."""
    layer = view.layer_index(f"{FIRST}.act")
    last = max(round(TAIL * len(view.buckets)), 1)
    columns = {name: view.column(name)[-last:, layer] for name in ("dead", "near_zero", "std")}
    return {
        name: float(np.nanmean(values)) if np.isfinite(values).any() else None
        for name, values in columns.items()
    }
