"""`MixUp` and `CutMix`: train on pairs of samples mixed into one, with the loss mixed alike.

No idea of the loss function: the step computes it twice.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from actograph.errors import UsageError
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import Batch, Phase
from actograph.train.step import describe


class Mixing(Callback, ABC):
    """Mix each training batch with a shuffled copy of itself: what `MixUp` and `CutMix` have in common.

    The share of the first partner is drawn from Beta(alpha, alpha) once a batch and is at least one half, as in fastai.
    The loss is ``share * loss(pred, y) + (1 - share) * loss(pred, y_shuffled)``: right for class numbers and for numbers,
    with any loss function. Random numbers are a function of ``seed`` and the number of batches mixed so far, so nothing
    else is disturbed and a resumed fit mixes alike. A UsageError says that ``x`` or ``y`` cannot be mixed.
    """

    stage = Stage.CHANGE

    def __init__(self, alpha: float, seed: int = 0) -> None:
        if not 0 < alpha < math.inf:
            raise UsageError(f"alpha={alpha}: give a positive number (0.4; 1 draws all shares alike)")
        self.alpha = alpha
        self.seed = seed
        self.num_batches = 0  # mixed so far
        self._share = 1.0
        self._partner_y: Tensor | None = None

    @abstractmethod
    def mix(self, x: Tensor, partner: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
        """Return ``share`` of ``x`` mixed with the rest of ``partner``, both (N, ...), and the share it came to."""

    def before_batch(self, loop: Loop) -> None:
        """Mix the inputs and keep the partners' targets."""
        self._partner_y = None
        batch = loop.batch
        if loop.progress.phase is not Phase.TRAIN:
            return
        self.check(batch)
        rng = np.random.default_rng((self.seed, self.num_batches))
        self.num_batches += 1
        share = rng.beta(self.alpha, self.alpha)
        order = torch.from_numpy(rng.permutation(len(batch.x))).to(batch.x.device, non_blocking=True)
        batch.x, self._share = self.mix(batch.x, batch.x[order], max(share, 1 - share), rng)
        self._partner_y = batch.y[order]

    def after_loss(self, loop: Loop) -> None:
        """Mix the losses."""
        if self._partner_y is None:
            return
        other = Batch(loop.batch.x, self._partner_y)
        other.pred = loop.batch.pred
        loop.batch.loss = torch.lerp(loop.step.loss(other), loop.batch.loss, self._share)

    def after_batch(self, loop: Loop) -> None:
        """Let go of the partners."""
        self._partner_y = None

    def cleanup_fit(self, loop: Loop) -> None:
        """Let go of the partners after an error too."""
        self._partner_y = None

    def state_dict(self) -> dict[str, Any]:
        """Return the number of batches mixed so far."""
        return {"num_batches": self.num_batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.num_batches = state["num_batches"]

    def check(self, batch: Batch) -> None:
        """Raise UsageError unless inputs are floating-point and targets a tensor, of as many samples."""
        x, y = batch.x, batch.y
        is_mixable = isinstance(x, Tensor) and x.is_floating_point() and isinstance(y, Tensor)
        if not is_mixable or not x.ndim or not y.ndim or len(x) != len(y):
            raise UsageError(
                f"{type(self).__name__} mixes inputs that are one floating-point tensor with targets that are one tensor of "
                f"as many samples, but got {describe(x)} and {describe(y)}"
            )


class MixUp(Mixing):
    """Blend inputs in pairs (Zhang et al. 2018): ``share * x + (1 - share) * x_shuffled``.

    One share a batch, as in the paper's code; fastai draws one a sample, which needs a loss for each sample.
    """

    def __init__(self, alpha: float = 0.4, seed: int = 0) -> None:
        super().__init__(alpha, seed)

    def mix(self, x: Tensor, partner: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
        """Return the blend, and the share as it was given."""
        return torch.lerp(partner, x, share), share


class CutMix(Mixing):
    """Paste a box of another image of the batch into each (Yun et al. 2019); ``x`` is (N, C, H, W).

    The box lies at random and may reach over the border; the share is that of the pixels that were left.
    """

    def __init__(self, alpha: float = 1.0, seed: int = 0) -> None:
        super().__init__(alpha, seed)

    def mix(self, x: Tensor, partner: Tensor, share: float, rng: np.random.Generator) -> tuple[Tensor, float]:
        """Return the images with the box in them, and the share of pixels outside it."""
        height, width = x.shape[-2:]
        top, bottom = box_side(height, share, rng)
        left, right = box_side(width, share, rng)
        mixed = x.clone()
        mixed[..., top:bottom, left:right] = partner[..., top:bottom, left:right]
        return mixed, 1 - (bottom - top) * (right - left) / (height * width)

    def check(self, batch: Batch) -> None:
        """Raise UsageError unless inputs are images, too."""
        super().check(batch)
        if batch.x.ndim != 4:  # noqa: PLR2004 - N, C, H, W
            raise UsageError(f"CutMix cuts images (N, C, H, W), but the inputs are {describe(batch.x)}")


def box_side(length: int, share: float, rng: np.random.Generator) -> tuple[int, int]:
    """Return begin and end, on an axis of ``length``, of a box that leaves ``share`` of the area (paper, equation 2)."""
    half = int(length * math.sqrt(1 - share)) // 2
    centre = int(rng.integers(length))
    return max(centre - half, 0), min(centre + half, length)
