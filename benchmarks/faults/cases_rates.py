"""Faults of how a training is driven: rates, schedules, momentum, epsilon, clipping, batch size, decay, gradients"
" that explode.

No idea of how they are found.
"""

from __future__ import annotations

import functools

import torch
from torch import nn

from faults import data
from faults.case import Case, Change, replace_modules, scale_rate, set_options
from faults.networks import GPT, Recurrent
from faults.programs import CONTEXT, PROGRAMS, cosine
from faults.setting import Setting

PLAIN_SGD = {"lr": 0.05, "momentum": 0.9}
WARM_UP_STEPS = 30
EARLY = ("learning-rate-decayed-early",)
WARM_UP = ("missing-warmup", "learning-rate-too-high")  # a lower rate repairs it as well
ADDED = ("encoder", "convnet", "cancer", "autoencoder")  # by version 2
RNN = ("rnn", "rnn:0", "rnn:1")  # its outputs are the output and the last state


def repair_jump(setting: Setting, target: str, new: float) -> bool:
    """Take a jump out of the schedule: no rate above ``new``."""
    if target != "lr":
        return False
    schedule, rate = setting.schedule, setting.options["lr"]
    setting.schedule = lambda step: min(schedule(step), new / rate)
    return True


def repair_schedule(setting: Setting, target: str, new: float) -> bool:
    """Keep the rate from falling: ``new`` is what it is not to fall below."""
    if target != "lr":
        return False
    schedule, rate = setting.schedule, setting.options["lr"]
    setting.schedule = lambda step: max(schedule(step), new / rate)
    return True


def jump(factor: float, t0: int) -> Change:
    """F02: a schedule multiplies the rate from step t0 on."""

    def apply(setting: Setting) -> None:
        old = setting.schedule
        setting.schedule = lambda step: old(step) * (factor if step >= t0 else 1.0)

    return apply


def decays(gamma: float) -> Change:
    """F04: an exponential decay that was meant for epochs is applied to steps."""

    def apply(setting: Setting) -> None:
        setting.schedule = lambda step: gamma**step

    return apply


def ends_early(num_steps: int) -> Change:
    """F04: a cosine over epochs that was given steps: it has fallen to nothing after so many."""

    def apply(setting: Setting) -> None:
        whole = cosine(num_steps)
        setting.schedule = lambda step: (whole(step) - 0.01) / 0.99 if step < num_steps else 0.0

    return apply


def plain_sgd(setting: Setting) -> None:
    """Train with SGD and momentum at a rate that suits it."""
    setting.optimizer, setting.options = torch.optim.SGD, dict(PLAIN_SGD)


def clipped_at(norm: float) -> Change:
    """F42d: gradients are clipped at a norm far below theirs."""

    def apply(setting: Setting) -> None:
        setting.clip = norm

    return apply


def batch_of(size: int) -> Change:
    """F42c: batches so small that their gradients are noise, at the rate of larger ones."""

    def apply(setting: Setting) -> None:
        setting.batch_size = size

    return apply


def drops(share: float) -> Change:
    """F42a: nearly all activations are dropped."""

    def apply(setting: Setting) -> None:
        kinds = (nn.ReLU, nn.Tanh, nn.GELU)

        def change(_: str, module: nn.Module) -> nn.Module | None:
            if isinstance(module, nn.Dropout):
                module.p = share
            return nn.Sequential(module, nn.Dropout(share)) if isinstance(module, kinds) else None

        replace_modules(setting.model, change)

    return apply


def vanilla(gain: float, clip: float | None) -> Change:
    """F16: a plain recurrent network with ReLU whose recurrent weights are orthogonal times ``gain``, SGD with momentum."""

    def apply(setting: Setting) -> None:
        features = setting.train.x.shape[-1]
        model = Recurrent(functools.partial(nn.RNN, nonlinearity="relu"), features, 48, 10)
        nn.init.orthogonal_(model.rnn.weight_hh_l0, gain)
        setting.model, setting.clip = model, clip
        setting.optimizer, setting.options = torch.optim.SGD, dict(PLAIN_SGD)

    return apply


def post_norm(warm_up: int) -> Change:
    """F05: a transformer that normalizes after its sums, with so many steps of warm-up."""

    def apply(setting: Setting) -> None:
        _, num_tokens = data.text()
        setting.model = GPT(num_tokens, CONTEXT, width=48, num_blocks=4, post_norm=True)
        setting.schedule, setting.clip = cosine(setting.num_steps, warm_up=warm_up), None

    return apply


def abrupt(setting: Setting) -> None:
    """F05: the rate is as high as a warm-up makes possible (the twin's change, before this one), and there is none."""
    setting.schedule = cosine(setting.num_steps)


def _steps(program: str) -> int:
    torch.manual_seed(0)
    return PROGRAMS[program].make(0).num_steps


def _jumps(program: str) -> Case:
    t0 = _steps(program) * 2 // 5
    return Case(
        "F02", program, ("learning-rate-too-high",), jump(50.0, t0), t0=t0, severity=f"t{t0}", repair=repair_jump
    )


CASES = (
    *(
        Case("F01", program, ("learning-rate-too-high",), scale_rate(factor), severity=f"x{factor:g}")
        for program, factor in (
            ("mlp", 30.0), ("deep", 30.0), ("deep", 100.0), ("lstm", 100.0), ("friedman", 100.0), ("resnet", 300.0),
            ("encoder", 100.0), ("convnet", 30.0), ("convnet", 100.0), ("cancer", 100.0), ("autoencoder", 30.0), ("autoencoder", 100.0),
            ("cnn", 30.0), ("cnn", 100.0), ("gpt", 100.0), ("gru", 100.0), ("table", 100.0), ("diabetes", 100.0),
        )
    ),
    *(_jumps(program) for program in (*ADDED, "mlp", "deep", "lstm", "friedman", "cnn", "gpt", "gru", "table")),
    *(
        Case("F03", program, ("learning-rate-too-low",), scale_rate(1 / factor), severity=f"by{factor:g}")
        for program, factor in (
            ("mlp", 1e3), ("mlp", 1e4), ("deep", 1e3), ("resnet", 1e3), ("lstm", 1e3), ("friedman", 1e3),
            *((program, 1e3) for program in ADDED),
            ("cnn", 1e3), ("cnn", 1e4), ("vgg", 1e3), ("gpt", 1e3), ("gru", 1e3), ("table", 1e3), ("diabetes", 1e3),
        )
    ),
    *(
        Case("F04", program, EARLY, decays(0.9), t0=44, severity="exponential", repair=repair_schedule)
        for program in ("mlp", "deep", "friedman", "convnet", "autoencoder", "cnn", "gru", "diabetes")
    ),
    *(
        Case("F04", program, EARLY, ends_early(40), t0=38, severity="cosine", repair=repair_schedule)
        for program in ("lstm", "mlp", "cancer", "gpt", "table")
    ),
    Case("F05", "gpt", WARM_UP, post_norm(1), twin=post_norm(WARM_UP_STEPS)),
    *(
        Case("F05", "encoder", WARM_UP, abrupt, twin=scale_rate(factor), severity=f"x{factor:g}")
        for factor in (4.0, 3.0)
    ),
    *(
        Case("F06", program, ("momentum-too-high",), set_options(momentum=0.99), twin=twin)
        for program, twin in (("mlp", None), ("resnet", None), ("cancer", None), ("convnet", plain_sgd), ("diabetes", None), ("cnn", plain_sgd))
    ),
    *(
        Case("F16", program, ("exploding-gradients",), vanilla(3.0, None), layers=RNN, twin=vanilla(1.0, 1.0))
        for program in ("lstm", "gru")
    ),
    *(
        Case("F40", program, ("optimizer-epsilon",), set_options(eps=eps), severity=f"{eps:g}")
        for program, eps in (("deep", 1.0), ("lstm", 1.0), ("friedman", 10.0), ("encoder", 1.0), ("convnet", 1.0), ("autoencoder", 1.0), ("cnn", 1.0), ("gpt", 0.1), ("gru", 1.0))
    ),
    *(
        Case("F42a", program, ("over-regularized",), set_options(weight_decay=decay), severity=f"decay{decay:g}")
        for program, decay in (
            ("mlp", 0.3), ("resnet", 0.3), ("deep", 0.1), ("lstm", 0.3), ("convnet", 0.1), ("cancer", 0.6), ("autoencoder", 0.1), ("cnn", 0.3), ("gru", 0.3), ("diabetes", 0.6),
        )
    ),
    *(
        Case("F42a", program, ("over-regularized",), drops(0.9), severity="dropout0.9")
        for program in ("mlp", "deep", "autoencoder", "cnn", "table")
    ),
    *(
        Case("F42c", program, ("batch-too-small",), batch_of(1), severity="batch1")
        for program in ("mlp", "lstm", "deep", "convnet", "cancer", "gru", "diabetes", "cnn")
    ),
    *(
        Case("F42d", program, ("clipping-too-tight",), clipped_at(1e-3), severity="norm1e-3", twin=twin)
        for program, twin in (("mlp", None), ("resnet", None), ("cancer", None), ("convnet", plain_sgd), ("diabetes", None), ("cnn", plain_sgd))
    ),
)  # fmt: skip
