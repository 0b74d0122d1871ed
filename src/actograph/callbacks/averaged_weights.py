"""`AveragedWeights`: an exponential or a plain mean of the weights over the steps, measured by the valid phase.

No idea of optimizers: it looks at the weights after each step.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from actograph.errors import UsageError
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import Phase


class AveragedWeights(Callback):
    """Keep a mean of weights and floating-point buffers (BatchNorm's statistics); validation measures the mean.

    From the valid phase on until the next epoch the model holds the mean, so that all that looks at it after the epoch
    (a checkpoint of the best, an `EarlyStopping` that comes later in the list) has what was measured; training goes on
    with the raw weights.

    Args:
        decay: weight of the past in the exponential mean, 0.999 for a mean over about 1,000 steps. The mean is corrected
            for its start as Adam's moments are (Kingma & Ba 2015, section 3), so early epochs are not measured on initial
            weights. None: the plain mean of all steps since ``start``, stochastic weight averaging
            (Izmailov et al. 2018).
        start: share of the fit from which on steps count, in [0, 1).
        keep: the model has the mean when the fit has ended; False: the raw weights.

    """

    stage = Stage.CHANGE
    unique = True

    def __init__(self, decay: float | None = 0.999, *, start: float = 0.0, keep: bool = True) -> None:
        if decay is not None and not 0 < decay < 1:
            raise UsageError(
                f"decay={decay}: give a number between 0 and 1 (0.999), or None for the plain mean"
            )
        if not 0 <= start < 1:
            raise UsageError(f"start={start}: give the share of the fit to wait, 0 or more and below 1")
        self.decay = decay
        self.start = start
        self.keep = keep
        self.num_averaged = 0  # steps in the mean
        self._mean: list[Tensor] = []  # in the order of `averaged_tensors`
        self._raw: list[Tensor] = []  # the weights to train on with, while the model holds the mean

    def before_fit(self, loop: Loop) -> None:
        """Begin a new mean."""
        if loop.progress.num_epochs:
            self.num_averaged, self._mean, self._raw = 0, [], []

    def before_epoch(self, loop: Loop) -> None:
        """Train on with the raw weights."""
        self._give_back(loop)

    def after_step(self, loop: Loop) -> None:
        """Take the step's weights into the mean."""
        if loop.progress.fraction < self.start:
            return
        current = averaged_tensors(loop.model)
        self.num_averaged += 1
        if not self._mean:
            self._mean = [tensor.clone() for tensor in current]
        else:
            self._mean = on_same_device(self._mean, current)
            torch._foreach_lerp_(self._mean, current, self._weight())

    def before_phase(self, loop: Loop) -> None:
        """Let the valid phase of an epoch measure the mean."""
        if loop.progress.phase is Phase.VALID and loop.progress.num_epochs:
            self._put_in(loop)

    def after_fit(self, loop: Loop) -> None:
        """Leave the mean in the model, if asked to."""
        if self.keep and loop.progress.num_epochs:
            self._put_in(loop)
            self._raw = []
        self._give_back(loop)

    def cleanup_fit(self, loop: Loop) -> None:
        """Give the model its raw weights back, also after an error."""
        self._give_back(loop)

    def state_dict(self) -> dict[str, Any]:
        """Return the mean, its number of steps, and the raw weights while the model holds the mean."""
        return {"num_averaged": self.num_averaged, "mean": list(self._mean), "raw": list(self._raw)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.num_averaged = state["num_averaged"]
        self._mean = [tensor.clone() for tensor in state["mean"]]
        self._raw = [tensor.clone() for tensor in state["raw"]]

    def _weight(self) -> float:
        """Weight of the newest step: with it the mean of n steps has no trace of where the first began."""
        if self.decay is None:
            return 1 / self.num_averaged
        return (1 - self.decay) / (1 - self.decay**self.num_averaged)

    def _put_in(self, loop: Loop) -> None:
        if self._mean and not self._raw:
            current = averaged_tensors(loop.model)
            self._raw = [tensor.clone() for tensor in current]
            torch._foreach_copy_(current, self._mean)

    def _give_back(self, loop: Loop) -> None:
        if self._raw:
            torch._foreach_copy_(averaged_tensors(loop.model), self._raw)
            self._raw = []


def averaged_tensors(model: nn.Module) -> list[Tensor]:
    """Return the parameters and floating-point buffers, without their graph, each once."""
    tensors = [*model.parameters(), *model.buffers()]
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]


def on_same_device(tensors: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """Return the tensors where the others are; those loaded from a file may be elsewhere."""
    if tensors[0].device == others[0].device:
        return tensors
    return [tensor.to(other.device) for tensor, other in zip(tensors, others, strict=True)]
