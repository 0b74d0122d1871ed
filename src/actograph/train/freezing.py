"""Freeze the first parameter groups of an optimizer, and thaw them again.

No idea of rates or epochs.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from actograph.errors import UsageError

# As in fastai (train_bn=True): frozen features are normalised with the statistics of the new data all the same.
NORMALIZATIONS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
)


class Freezing:
    """Which groups of an optimizer are frozen.

    A frozen parameter requires no gradient and has none, so that the optimizer passes it by: no weight decay, no momentum.
    The scale and shift of normalization layers stay trainable, and their running statistics go on. What required no gradient
    before it was frozen here is never thawed (fastai's ``unfreeze`` thaws everything).
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.model = model
        self.optimizer = optimizer
        self._frozen: list[torch.Tensor] = []
        self._num_frozen_groups = 0

    @property
    def num_frozen_groups(self) -> int:
        """How many groups are frozen, counted from the input."""
        return self._num_frozen_groups

    def freeze_to(self, group: int) -> None:
        """Freeze the groups before ``group`` and thaw the others; -1 is the last group.

        A UsageError says that there is no such group.
        """
        groups = self.optimizer.param_groups
        if not -len(groups) <= group < len(groups):
            raise UsageError(
                f"freeze_to({group}): the optimizer has {len(groups)} parameter groups, 0 to {len(groups) - 1}"
            )
        self._thaw()
        self._num_frozen_groups = group % len(groups)
        trained = {id(parameter) for parameter in self._of_normalizations()}
        for frozen in groups[: self._num_frozen_groups]:
            for parameter in frozen["params"]:
                if parameter.requires_grad and id(parameter) not in trained:
                    parameter.requires_grad_(requires_grad=False)
                    parameter.grad = None
                    self._frozen.append(parameter)

    def freeze(self) -> None:
        """Freeze all groups but the last one.

        A UsageError says that there is only one.
        """
        if len(self.optimizer.param_groups) == 1:
            raise UsageError(
                "there is only one parameter group, so that freezing all but the last freezes nothing: "
                "say how to split the model, for example Learner(splitter=lambda model: [model.body, model.head])"
            )
        self.freeze_to(-1)

    def unfreeze(self) -> None:
        """Thaw all groups."""
        self.freeze_to(0)

    def _thaw(self) -> None:
        for parameter in self._frozen:
            parameter.requires_grad_()
        self._frozen = []

    def _of_normalizations(self) -> Iterator[nn.Parameter]:
        for module in self.model.modules():
            if isinstance(module, NORMALIZATIONS):
                yield from module.parameters(recurse=False)
