"""What torchmortem and torch-audit say, in our words: `translated`.

No idea of how they watch a training (`packages`), nor of cases.
"""

from __future__ import annotations

from typing import Any

from faults.said import Said, earliest

# What each finding may mean, by the package's own title or id; what is not here is no statement about a training
CAUSES: dict[str, dict[str, tuple[str, ...]]] = {
    "torchmortem": {
        "Vanishing gradients detected": (
            "vanishing-gradients", "initialization-too-small", "detached-graph", "fp16-underflow",
        ),
        "Gradient stalling": ("vanishing-gradients", "dead-units", "detached-graph", "fp16-underflow"),
        "Exploding gradients detected": (
            "exploding-gradients", "learning-rate-too-high", "initialization-too-large", "missing-warmup",
            "summed-loss", "missing-zero-grad", "targets-not-scaled", "inputs-not-normalized",
        ),
        "Dead units": ("dead-units",),
        "Activation saturation": ("saturated-activations", "initialization-too-large", "inputs-not-normalized"),
        "Rank collapse": (
            "constant-initialization", "over-regularized", "inputs-collapsed", "softmax-in-hidden-layer",
        ),
        "Update ratio too low": (
            "learning-rate-too-low", "learning-rate-decayed-early", "vanishing-gradients", "clipping-too-tight",
            "optimizer-epsilon",
        ),
        "Update ratio too high": (
            "learning-rate-too-high", "missing-warmup", "momentum-too-high", "missing-zero-grad", "summed-loss",
        ),
        "Weight norm explosion": (
            "learning-rate-too-high", "exploding-gradients", "momentum-too-high", "loss-sign-flipped",
        ),
        "Stagnant weight norms": (
            "parameters-not-in-optimizer", "stale-optimizer", "detached-graph", "learning-rate-too-low",
            "vanishing-gradients",
        ),
        "Inter-layer weight norm imbalance": (
            "initialization-too-large", "initialization-too-small", "head-initialization",
        ),
        "Training divergence detected": (
            "loss-diverging", "learning-rate-too-high", "non-finite-loss", "loss-sign-flipped",
        ),
        "Loss plateau detected": ("loss-not-decreasing", "learning-rate-too-low", "learning-rate-decayed-early"),
        "High gradient noise (low SNR)": ("batch-too-small",),
    },
    # Not here: advice on a set-up that holds whatever the training does (TA2xx on speed; TA400 to TA404 on biases before
    # norms, weight decay and kernel sizes), and crashes of its own checks (TA000)
    "torch-audit": {
        "TA100": (
            "non-finite-loss", "non-finite-input", "exploding-gradients", "fp16-overflow",
            "learning-rate-too-high",
        ),
        "TA102": (
            "exploding-gradients", "learning-rate-too-high", "missing-zero-grad", "summed-loss",
            "targets-not-scaled",
        ),
        "TA103": ("dead-units", "vanishing-gradients", "fp16-underflow"),
        "TA104": ("detached-graph", "stale-optimizer"),
        "TA105": ("dead-units",),
        "TA300": (),
        "TA301": ("inputs-not-normalized",),
        "TA302": ("inputs-collapsed",),
        "TA303": (),
        "TA304": ("batchnorm-batch-too-small",),
        "TA305": (),
        "TA405": ("constant-initialization", "dead-units", "initialization-too-small"),
        "TA500": (),
        "TA501": (),
    },
}  # fmt: skip

ALARMS = ("warning", "critical", "warn", "error", "fatal")  # not "info"


def translated(package: str, findings: list[dict[str, Any]]) -> list[Said]:
    """Return findings as kept, each kind once with all its layers.

    Those of torchmortem stay as it sorts them, most severe first; torch-audit does not rank, so the earliest comes first.
    """
    causes = CAUSES[package]
    said: list[Said] = []
    for one in findings:
        name = one["name"].split(" in ")[0]  # titles end with the layer: "Dead units in fc1"
        if name in causes and one["severity"] in ALARMS:
            layers = [layer for layer in one["layers"] if layer != "global"]
            said += [Said(name, layer, one["first_step"], causes=causes[name]) for layer in layers or [None]]
    if package == "torch-audit":
        return earliest(said)
    by_name: dict[str, list[Said]] = {}
    for one in said:
        by_name.setdefault(one.rule, []).append(one)
    return [joined for same in by_name.values() for joined in earliest(same)]
