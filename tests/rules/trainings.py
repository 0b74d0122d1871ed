"""Small real trainings for the tests of rules: a hand-written loop, plain forward hooks, recorded through `SyntheticRun`.

No idea of rules. Each training is a few hundred steps of a small network on clustered points.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from actograph.layout.layer import FlatRegion, LayerInfo, Nonlinearity, Side
from actograph.runlog.view import RunView
from actograph.testing.synthetic import RELU, SIGMOID, TANH, SyntheticRun
from tests.unmeasured import unmeasured

LEAKY = FlatRegion(Nonlinearity.LOW_SLOPE, Side.OUTPUT, ((-np.inf, 0.0),))
FLAT: dict[type[nn.Module], FlatRegion] = {
    nn.ReLU: RELU,
    nn.Tanh: TANH,
    nn.Sigmoid: SIGMOID,
    nn.LeakyReLU: LEAKY,
}
CLASSES, FEATURES = 10, 20


@dataclass(frozen=True)
class Training:
    """How to train; `run` does it."""

    act: Callable[[], nn.Module] = nn.ReLU
    widths: tuple[int, ...] = (64, 64)
    lr: float = 1e-3
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam
    schedule: Callable[[float], float] = lambda progress: 1.0  # factor of lr over progress in [0, 1]
    steps: int = 200
    batch: int = 64
    seed: int = 0
    spread: float = 1.0  # of the points within a class: 1 is easy, 3 leaves a loss that cannot go away
    input_scale: float = 1.0
    task: str = "classes"  # "binary" (sigmoid head), "gaussian" (negative log likelihood), "shuffled" labels
    prepare: Callable[[nn.Sequential], None] = lambda model: None
    before_step: Callable[[nn.Sequential, int], None] = lambda model, step: None
    change_input: Callable[[Tensor, int], Tensor] = lambda x, step: x

    def but(self, **changes: Any) -> Training:
        return replace(self, **changes)

    @unmeasured()
    def run(self) -> RunView:
        """Train and return the recorded run."""
        torch.manual_seed(self.seed)
        model = self._model()
        self.prepare(model)
        centers = torch.randn(CLASSES, FEATURES) * 1.5
        optimizer = self.optimizer(model.parameters(), lr=self.lr)
        outputs: dict[str, Tensor] = {}
        for name, module in model.named_children():
            module.register_forward_hook(_keeper(outputs, name))
        run = SyntheticRun(self._layers(model), name="training")
        for step in range(self.steps):
            lr = self.lr * self.schedule(step / self.steps)
            optimizer.param_groups[0]["lr"] = lr
            self.before_step(model, step)
            x, y = self._batch(centers)
            loss = self._loss(model(self.change_input(x, step)), y)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            arrays = {name: value.numpy() for name, value in outputs.items()}
            run.step(arrays, loss=float(loss.detach()), lr=lr)
        return run.view()

    def _model(self) -> nn.Sequential:
        num_outputs = {"binary": 1, "gaussian": 2}.get(self.task, CLASSES)
        layers: list[tuple[str, nn.Module]] = []
        for number, (a, b) in enumerate(itertools.pairwise((FEATURES, *self.widths)), 1):
            layers += [(f"fc{number}", nn.Linear(a, b)), (f"act{number}", self.act())]
        model = nn.Sequential()
        for name, module in [*layers, ("head", nn.Linear(self.widths[-1], num_outputs))]:
            model.add_module(name, module)
        if self.task == "binary":
            model.add_module("prob", nn.Sigmoid())
        return model

    def _layers(self, model: nn.Sequential) -> list[LayerInfo]:
        infos = []
        width = FEATURES
        for name, module in model.named_children():
            width = module.out_features if isinstance(module, nn.Linear) else width
            num_parameters = sum(p.numel() for p in module.parameters())
            flat = FLAT.get(type(module))
            kind = type(module).__name__
            infos.append(
                LayerInfo(name, kind, (self.batch, width), "float32", 1, width, flat, num_parameters)
            )
        return infos

    def _batch(self, centers: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.randint(CLASSES, (self.batch,))
        x = (centers[y] + self.spread * torch.randn(self.batch, FEATURES)) * self.input_scale
        return x, torch.randint(CLASSES, (self.batch,)) if self.task == "shuffled" else y

    def _loss(self, out: Tensor, y: Tensor) -> Tensor:
        if self.task == "binary":
            return nn.functional.binary_cross_entropy(out[:, 0], (y % 2).float())
        if self.task == "gaussian":
            target = 0.01 * y.float()
            mean, log_var = out[:, 0], out[:, 1]
            return 0.5 * ((target - mean) ** 2 * torch.exp(-log_var) + log_var).mean()
        return nn.functional.cross_entropy(out, y)


def one_cycle(progress: float) -> float:
    """fastai's shape: up for a quarter of the run, then down to nothing."""
    up = 0.25
    if progress < up:
        return float(0.04 + 0.96 * (1 - np.cos(np.pi * progress / up)) / 2)
    return float((1 + np.cos(np.pi * (progress - up) / (1 - up))) / 2)


def restarts(progress: float) -> float:
    """Cosine annealing with four warm restarts."""
    return float((1 + np.cos(np.pi * (4 * progress % 1))) / 2)


def warm_up(progress: float) -> float:
    return min(1.0, progress / 0.3)


def scale_weights(factor: float, *names: str) -> Callable[[nn.Sequential], None]:
    def prepare(model: nn.Sequential) -> None:
        with torch.no_grad():
            for name, module in model.named_children():
                if isinstance(module, nn.Linear) and (not names or name in names):
                    module.weight *= factor

    return prepare


def bias_drop(name: str, at: int, value: float = -5.0) -> Callable[[nn.Sequential, int], None]:
    """From step ``at`` on the bias of a layer is so low that its units cannot fire."""

    def before_step(model: nn.Sequential, step: int) -> None:
        if step == at:
            layer = model.get_submodule(name)
            assert isinstance(layer, nn.Linear)
            with torch.no_grad():
                layer.bias.fill_(value)
                layer.weight *= 0.1

    return before_step


def _keeper(outputs: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        outputs[name] = output.detach()

    return keep
