"""The healthy controls H01 to H18, each on programs of both halves: trainings that go well and look ill to naive rules.

No idea of rules. The catalogue stands in `../shared/research/diagnosis.md`, section 6; H00 is each program as it is.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from faults.case import Change, Control, replace_modules, weight_layers
from faults.loop import Loop
from faults.networks import Residual
from faults.programs import PROGRAMS, one_cycle
from faults.setting import Data, Setting

PRETRAINING_STEPS = 250


def _sparse(setting: Setting) -> None:
    """H01: biases so low that most values are zero and some units never fire."""
    with torch.no_grad():
        for _, module in weight_layers(setting.model)[:-1]:
            module.bias.uniform_(-0.6, 0.0)
            module.bias[: len(module.bias) // 10] = -10.0


def _warm_up(setting: Setting) -> None:
    """H02: the rate rises linearly from nearly nothing over a fifth of the run."""
    steps, old = setting.num_steps // 5, setting.schedule
    setting.schedule = lambda step: old(step) * min((step + 1) / steps, 1.0)


def _one_cycle(setting: Setting) -> None:
    """H03: one cycle whose peak is several times the usual rate."""
    setting.options["lr"] *= 4
    setting.schedule = one_cycle(setting.num_steps)


def _fine_tuned(setting: Setting) -> None:
    """H04: trained before, now the head at a small rate on half of the data, the trunk frozen."""
    before = setting.num_steps, setting.schedule
    setting.num_steps = PRETRAINING_STEPS
    Loop(setting, seed=12345).run()
    setting.num_steps, _ = before
    setting.schedule = lambda _: 1.0
    setting.options["lr"] *= 0.02
    for parameter in setting.model.parameters():
        parameter.requires_grad_(False)
    for parameter in weight_layers(setting.model)[-1][1].parameters():
        parameter.requires_grad_(True)
    setting.parameters = lambda model: [one for one in model.parameters() if one.requires_grad]


def _dropout(setting: Setting) -> None:
    """H05: half of the activations are dropped in training; more steps."""
    kinds = (nn.ReLU, nn.Tanh, nn.GELU)
    layers = [name for name, module in setting.model.named_modules() if isinstance(module, kinds)]
    last = layers[-2:]

    def change(name: str, module: nn.Module) -> nn.Module | None:
        return nn.Sequential(module, nn.Dropout(0.5)) if name in last else None

    replace_modules(setting.model, change)


def _unchanged(setting: Setting) -> None:
    """H06, H07: the program is what is meant: a transformer before whose blocks stands LayerNorm; BatchNorm."""


def _loose_clip(setting: Setting) -> None:
    """H08: gates that saturate at times, gradients with spikes that are clipped."""
    setting.clip = 0.5
    setting.options["lr"] *= 1.5


def _stretch(setting: Setting, factor: float) -> None:
    """Train longer; the schedule is stretched with it."""
    old = setting.schedule
    setting.schedule = lambda step: old(int(step / factor))
    setting.num_steps = int(setting.num_steps * factor)
    setting.eval_every = int(setting.eval_every * factor)


def _zero_gamma(setting: Setting) -> None:
    """H09: each residual branch begins as zero; half as many steps again."""
    _stretch(setting, 1.5)
    for module in setting.model.modules():
        if isinstance(module, Residual):
            nn.init.zeros_(module.bn2.weight)
        elif hasattr(module, "down") and hasattr(module, "proj"):
            nn.init.zeros_(module.down.weight)
            nn.init.zeros_(module.proj.weight)


def _label_smoothing(setting: Setting) -> None:
    """H10: the loss has a floor."""
    setting.loss = nn.CrossEntropyLoss(label_smoothing=0.1)


def _imbalanced(setting: Setting) -> None:
    """H11: one class has ten times as many samples as each of the others; all are learned."""
    x, y = setting.train
    keep = (y == 0) | (torch.arange(len(y)) % 3 == 0)
    rare = Data(x[keep], y[keep])
    often = rare.x[rare.y == 0]
    copies = often.repeat(5, *[1] * (often.ndim - 1))
    copies = copies + 0.05 * torch.randn_like(copies)
    setting.train = Data(torch.cat([rare.x, copies]), torch.cat([rare.y, torch.zeros(len(copies), dtype=y.dtype)]))
    _stretch(setting, 1.3)


def _few_samples(setting: Setting) -> None:
    """H12: fifty samples are learned by heart on purpose; nobody evaluates on others."""
    setting.train = Data(setting.train.x[:50], setting.train.y[:50])
    setting.valid = setting.test = setting.train
    setting.batch_size = 25
    setting.num_steps //= 2


def _converged(setting: Setting) -> None:
    """H13: half of the run is a plateau, all is learned; the rate is small by then."""
    length = setting.num_steps
    setting.num_steps = 2 * length
    setting.eval_every *= 2
    setting.schedule = lambda step: max(0.5 * (1 + math.cos(math.pi * min(step / length, 1.0))), 0.01)


def _restarts(setting: Setting) -> None:
    """H14: a cosine with warm restarts; the loss jumps at each."""
    period = setting.num_steps // 3
    setting.options["lr"] *= 1.5
    setting.schedule = lambda step: 0.02 + 0.98 * (1 + math.cos(math.pi * (step % period) / period)) / 2


def _accumulating(setting: Setting) -> None:
    """H15: four micro-batches a step."""
    setting.accumulate = 4
    setting.batch_size = max(setting.batch_size // 4, 1)


def _mixed_precision(setting: Setting) -> None:
    """H16: float16 with a scaler that begins too high and skips some steps."""
    setting.autocast = torch.float16
    setting.scaler = {"init_scale": 2.0**30 if setting.clip is None else 2.0**26, "growth_interval": 120}


def _full_batch(setting: Setting) -> None:
    """H17: gradient descent on all samples at the edge of stability."""
    setting.train = Data(setting.train.x[:400], setting.train.y[:400])
    setting.batch_size = 400
    setting.optimizer, setting.options = torch.optim.SGD, {"lr": 0.3 if setting.metric.__name__ == "accuracy" else 0.1}


def _small_batch(setting: Setting) -> None:
    """H18: batches of four at a rate that suits them."""
    setting.batch_size = 4
    setting.options["lr"] *= 0.3
    _stretch(setting, 2)


PLACES: tuple[tuple[str, Change, tuple[str, ...]], ...] = (
    ("H01", _sparse, ("mlp", "convnet", "cancer", "cnn")),
    ("H02", _warm_up, ("deep", "convnet", "cancer", "gru")),
    ("H03", _one_cycle, ("mlp", "convnet", "cancer", "cnn")),
    ("H04", _fine_tuned, ("mlp", "convnet", "cnn")),
    ("H05", _dropout, ("mlp", "autoencoder", "table")),
    ("H06", _unchanged, ("deep", "gpt")),
    ("H07", _unchanged, ("resnet", "vgg")),
    ("H08", _loose_clip, ("lstm", "encoder", "gru")),
    ("H09", _zero_gamma, ("resnet", "gpt")),
    ("H10", _label_smoothing, ("mlp", "encoder", "cnn")),
    ("H11", _imbalanced, ("mlp", "convnet", "table")),
    ("H12", _few_samples, ("mlp", "convnet", "cancer", "diabetes")),
    ("H13", _converged, ("mlp", "convnet", "autoencoder", "table")),
    ("H14", _restarts, ("friedman", "convnet", "autoencoder", "cnn")),
    ("H15", _accumulating, ("mlp", "encoder", "cancer", "gru")),
    ("H16", _mixed_precision, ("mlp", "convnet", "autoencoder", "table")),
    ("H17", _full_batch, ("mlp", "convnet", "cancer", "table")),
    ("H18", _small_batch, ("friedman", "convnet", "cancer", "encoder", "table")),
)

CONTROLS: dict[str, Control] = {
    control.id: control
    for control in (
        *(Control("H00", program) for program in PROGRAMS),
        *(Control(name, program, change) for name, change, programs in PLACES for program in programs),
    )
}

