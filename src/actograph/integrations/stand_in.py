"""`StandIn`: an optimizer of torch's kind around the updates that another library's optimizer makes.

No idea of libraries or of recording. Whoever watches optimizers through torch's hooks sees each update begin and end, with
gradients, weights and rate as they are then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor


class StandIn(torch.optim.Optimizer):
    """Stands for an optimizer while that has its method replaced; changes nothing of what it does.

    Args:
        owner: the optimizer.
        method: the name of its method that updates the parameters.
        groups: its parameters, in groups.
        settings: asked before each update for what each group is trained with, such as its ``lr``.
        is_update: asked before each call of the method whether it is going to update anything.

    """

    def __init__(
        self,
        owner: object,
        method: str,
        groups: Iterable[Iterable[Tensor]],
        settings: Callable[[], Sequence[Mapping[str, float]]],
        is_update: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__([{"params": list(group)} for group in groups], {"lr": 0.0})
        self._owner, self._method = owner, method
        self._settings, self._is_update = settings, is_update
        self._original: Callable[..., Any] = getattr(owner, method)
        self._call: Callable[[], Any] | None = None

    def install(self) -> None:
        """Have the updates made inside of `step`."""
        setattr(self._owner, self._method, self._around)

    def remove(self) -> None:
        """Give the method back."""
        delattr(self._owner, self._method)  # the replacement: its class still has the original

    def step(self, closure: None = None) -> Any:  # type: ignore[override]
        """Make the update that was asked for; without one, do nothing."""
        return None if self._call is None else self._call()

    def _around(self, *args: Any, **kwargs: Any) -> Any:
        call = partial(self._original, *args, **kwargs)
        if not self._is_update():
            return call()
        for group, values in zip(self.param_groups, self._settings(), strict=True):
            group.update(values)
        self._call = call
        try:
            return self.step()
        finally:
            self._call = None
