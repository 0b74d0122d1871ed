"""Faults of the loop: gradients, optimizer and model that do not fit together. Logical violations, exact in layer and step.

No idea of how they are found.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from faults.case import Case, Change, replace_modules, weight_layers
from faults.loop import Loop
from faults.cases_rates import ADDED, RNN
from faults.programs import PROGRAMS
from faults.setting import Setting


class Detached(nn.Module):
    """A layer whose output has lost its graph from some moment on."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.is_cut = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return y.detach() if self.is_cut else y


def never_zeroed(setting: Setting) -> None:
    """F36: nobody zeroes the gradients."""
    setting.zeroes_gradients = False


def only_head(setting: Setting) -> None:
    """F37: the optimizer was given the last layer only."""
    setting.parameters = lambda model: list(weight_layers(model)[-1][1].parameters())


def stale(setting: Setting) -> None:
    """F39: the optimizer was made with the parameters of a model that was replaced afterwards."""
    import copy

    old = copy.deepcopy(setting.model)
    setting.parameters = lambda _: list(old.parameters())


def cut_after(name: str, t0: int) -> Change:
    """F38: the output of a layer is detached from step t0 on."""

    def apply(setting: Setting) -> None:
        replace_modules(setting.model, lambda each, module: Detached(module) if each == name else None)

        def cut(loop: Loop) -> None:
            loop.model.get_submodule(name).is_cut = True

        setting.at(t0, cut)

    return apply


def evaluates_forever(setting: Setting) -> None:
    """F17: after the first evaluation nobody calls ``model.train()``."""
    setting.trains_in_train_mode = False


def evaluates_in_train_mode(setting: Setting) -> None:
    """F18: the evaluation forgets ``model.eval()``."""
    setting.evaluates_in_eval_mode = False


def _t0_eval(program: str) -> int:
    torch.manual_seed(0)
    return PROGRAMS[program].make(0).eval_every


CASES = (
    *(Case("F36", program, ("missing-zero-grad",), never_zeroed, t0=1, remedies=("zero",)) for program in ("mlp", "lstm", *ADDED, "cnn", "table")),
    *(
        Case("F37", program, ("parameters-not-in-optimizer",), only_head, layers=layers, remedies=("optimizer",))
        for program, layers in (
            ("mlp", ("fc1", "fc2")), ("resnet", ("stem",)), ("lstm", RNN), ("convnet", ("conv1", "conv2", "fc1")),
            ("cancer", ("fc1", "fc2")), ("encoder", ("embed",)), ("cnn", ("conv1", "conv2", "conv3")), ("gru", RNN),
        )
    ),
    *(
        Case("F38", program, ("detached-graph",), cut_after(layer, t0), t0=t0, layers=(layer, f"{layer}.layer"),
             severity=f"t{t0}", remedies=("detach", "graph", "no_grad"))
        for program, layer, t0 in (
            ("mlp", "fc2", 0), ("deep", "act6", 0), ("convnet", "conv2", 0), ("cancer", "act1", 80), ("autoencoder", "act2", 100), ("cnn", "conv2", 0), ("table", "act2", 60),
        )
    ),
    *(Case("F39", program, ("stale-optimizer",), stale, remedies=("optimizer",)) for program in ("mlp", "lstm", "convnet", "autoencoder", "vgg", "gpt")),
    *(
        Case("F17", program, ("eval-mode-in-training",), evaluates_forever, t0=_t0_eval(program), remedies=("train()", "model.train"))
        for program in ("resnet", "vgg")
    ),
    *(
        Case("F18", program, ("train-mode-in-evaluation",), evaluates_in_train_mode, t0=_t0_eval(program) - 1, remedies=("eval()", "model.eval"))
        for program in ("resnet", "vgg")
    ),
)  # fmt: skip
