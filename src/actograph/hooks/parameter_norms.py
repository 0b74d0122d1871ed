"""`ParameterNorms`: norms of an optimizer's parameters, their gradients and their update, by torch's foreach kernels.

No idea of steps' numbers, names or files. Nothing here waits for the device: a step's numbers are one small tensor there,
which `parameter_rows` turns into rows when it has come to the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from actograph.hooks.shards import local_part
from actograph.layout.parameter import ParameterField, empty_parameter_rows
from actograph.layout.row import Floats

GRADIENT_NUMBERS = (
    4  # of each gradient: norm, norm as the optimizer used it, number of values that are not 0, largest
)
WEIGHT_NUMBERS = 2  # of each parameter: norm of the weights, norm of the update


class Measured(NamedTuple):
    """What belongs to a step's numbers on the host."""

    sizes: Floats  # values of each parameter (P,)
    present: list[int]  # positions of the parameters that had a gradient
    knows_clip: bool  # whether the gradients were measured before they could be clipped


class Totals(NamedTuple):
    """Numbers of each step over all parameters (n,)."""

    grad_norm: Floats
    clip_ratio: Floats  # norm of the gradients used / norm before; NaN where not known


class ParameterNorms:
    """Measures one optimizer's parameters at the right moments of a step.

    `measure_gradients` when they are complete, unscaled and not clipped (the last call counts), `begin_update` right before
    the optimizer moves, `end_update` right after. Keeps one copy of the weights. Of a parameter that is shared out over
    processes the norms are those of the part that is here.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self.parameters = [parameter for parameter in parameters if has_values(parameter)]
        parts = [local_part(parameter) for parameter in self.parameters]
        self._is_shared_out = any(
            part is not whole for part, whole in zip(parts, self.parameters, strict=True)
        )
        self._has_complex = any(part.is_complex() for part in parts)
        self._sizes = np.array([part.numel() for part in parts], np.float64)
        widest = any(parameter.dtype in (torch.float64, torch.complex128) for parameter in self.parameters)
        self._dtype = torch.float64 if widest else torch.float32  # of the norms: float16 would overflow
        kinds = {(parameter.device, parameter.dtype) for parameter in self.parameters}
        self._is_uniform = len(kinds) == 1 and self._dtype in {dtype for _, dtype in kinds}
        self._before: list[Tensor] = []  # weights before the update
        self._weight_norms: list[Tensor] = []
        self._has_begun = False
        self._present: list[int] = []
        self._gradients: list[Tensor] = []  # as they are now, for their versions
        self._versions: list[int] = []
        self._found: list[Tensor] = []  # norms, numbers of values, largest of the gradients
        self._used: list[Tensor] = []
        self._knows_clip = False

    @torch.no_grad()
    def measure_gradients(self, *, knows_clip: bool) -> None:
        """Measure the gradients as they are now; ``knows_clip`` says that nobody can have clipped them yet."""
        gradients = self._gradients_of(self.parameters)
        self._present = [index for index, gradient in enumerate(gradients) if gradient is not None]
        self._gradients = [gradient for gradient in gradients if gradient is not None]
        self._versions = [gradient._version for gradient in self._gradients]
        self._knows_clip = knows_clip
        values = [_real(gradient) for gradient in self._gradients]
        if values:
            norms = torch._foreach_norm(values, 2, dtype=self._dtype)
            measure = _extent_on_cpu if values[0].is_cpu else _extent
            self._found = [*norms, *measure(values, self._dtype)]

    @torch.no_grad()
    def begin_update(self, *, has_gradients: bool = True) -> None:
        """Note the weights, and the gradients' norms anew if they were changed; measure them if nobody did.

        Without ``has_gradients`` the optimizer is going to compute them itself.
        """
        if not self.parameters:
            return
        if has_gradients and not self._gradients:
            self.measure_gradients(knows_clip=False)
        self._knows_clip = self._knows_clip and has_gradients
        self._used = self._norms_used() if has_gradients else self._norms()
        weights = self._weights()
        if [weight.device for weight in weights[:1]] != [weight.device for weight in self._before[:1]]:
            self._before = [torch.empty_like(weight) for weight in weights]
        torch._foreach_copy_(self._before, weights)
        self._weight_norms = list(torch._foreach_norm(weights, 2, dtype=self._dtype))
        self._has_begun = True

    @torch.no_grad()
    def end_update(self) -> tuple[Measured, Tensor] | None:
        """Return the step's numbers on the device (one-dimensional); None where its beginning was not seen."""
        if not self._has_begun:
            return None
        if not self._gradients:
            self.measure_gradients(knows_clip=False)
            self._used = self._norms()
        elif (
            not self._used
        ):  # the optimizer computed them itself, and they were measured before they were clipped
            self._used = self._norms_used()
        torch._foreach_sub_(self._before, self._weights())  # the update, but for its sign
        updates = torch._foreach_norm(self._before, 2, dtype=self._dtype)
        num = len(self._present)
        numbers = [*self._found[:num], *self._used, *self._found[num:], *self._weight_norms, *updates]
        if not self._is_uniform:
            numbers = [number.to(numbers[0].device, self._dtype) for number in numbers]
        measured = Measured(self._sizes, self._present, self._knows_clip)
        self._forget()
        return measured, torch.stack(numbers)

    def _forget(self) -> None:
        self._present, self._gradients, self._versions = [], [], []
        self._found, self._used, self._knows_clip = [], [], False
        self._has_begun = False

    def _weights(self) -> list[Tensor]:
        weights = [local_part(one) for one in self.parameters] if self._is_shared_out else self.parameters
        return [_real(weight) for weight in weights] if self._has_complex else weights

    def _gradients_of(self, parameters: Sequence[Tensor]) -> list[Tensor | None]:
        gradients = [parameter.grad for parameter in parameters]
        if not self._is_shared_out:
            return gradients
        return [None if gradient is None else local_part(gradient) for gradient in gradients]

    def _norms(self) -> list[Tensor]:
        return self._found[: len(self._present)]

    def _norms_used(self) -> list[Tensor]:
        """Return the norms of the gradients as they are now, without measuring where nothing has changed."""
        now = self._gradients_of([self.parameters[index] for index in self._present])
        changed = [
            gradient is not old or gradient._version != version
            for gradient, old, version in zip(now, self._gradients, self._versions, strict=True)
        ]
        if not any(changed):
            return self._norms()
        none = torch.zeros(1)  # in the place of a gradient that somebody has dropped
        values = [_real(gradient) if gradient is not None else none for gradient in now]
        return list(torch._foreach_norm(values, 2, dtype=self._dtype))


def parameter_rows(steps: Sequence[int], measured: Measured, numbers: Floats) -> tuple[Floats, Totals]:
    """Return rows (n, P, NUM_PARAMETER_FIELDS) and totals of n steps that ``measured`` is true of.

    ``numbers`` (n, k) are those of `ParameterNorms.end_update`, on the host.
    """
    present, sizes = np.array(measured.present, np.intp), measured.sizes
    end = GRADIENT_NUMBERS * len(present)
    gradients = numbers[:, :end].reshape(len(steps), GRADIENT_NUMBERS, -1)
    norms, used, num_others, largest = gradients.swapaxes(0, 1)
    weights, updates = numbers[:, end:].reshape(len(steps), WEIGHT_NUMBERS, -1).swapaxes(0, 1)
    rows = empty_parameter_rows(len(steps), len(sizes))
    rows[..., ParameterField.STEPS] = 1
    at = np.array(steps, np.float64)[:, None]
    rows[:, present] = _gradient_part(rows[:, present], at, norms, num_others / sizes[present], largest)
    _fill_updates(rows, at, weights, updates)
    return rows, _totals(norms, used, knows_clip=measured.knows_clip)


def _gradient_part(rows: Floats, at: Floats, norms: Floats, others: Floats, largest: Floats) -> Floats:
    finite = np.isfinite(norms)
    rows[..., ParameterField.FINITE] = finite
    rows[..., ParameterField.NON_FINITE] = ~finite
    rows[..., ParameterField.FIRST_NON_FINITE] = np.where(finite, np.inf, at)
    rows[..., ParameterField.GRAD_NORM] = np.where(finite, norms, 0.0)
    rows[..., ParameterField.GRAD_ZEROS] = np.where(finite, 1.0 - others, 0.0)
    rows[..., ParameterField.GRAD_MAX] = np.where(finite, largest, -np.inf)
    return rows


def _fill_updates(rows: Floats, at: Floats, weights: Floats, updates: Floats) -> None:
    rows[..., ParameterField.FIRST_BAD_WEIGHTS] = np.where(np.isfinite(weights), np.inf, at)
    moved = np.isfinite(weights) & np.isfinite(updates)
    rows[..., ParameterField.MOVED] = moved
    rows[..., ParameterField.WEIGHT_NORM] = np.where(moved, weights, 0.0)
    rows[..., ParameterField.UPDATE_NORM] = np.where(moved, updates, 0.0)
    stuck = (updates == 0) & (rows[..., ParameterField.GRAD_NORM] > 0)
    rows[..., ParameterField.ZERO_UPDATES] = stuck
    rows[..., ParameterField.FIRST_ZERO_UPDATE] = np.where(stuck, at, np.inf)


def _totals(norms: Floats, used: Floats, *, knows_clip: bool) -> Totals:
    total, left = (np.sqrt(np.square(one).sum(axis=1)) for one in (norms, used))
    ratio = np.where(total == 0, 1.0, np.nan)
    if not knows_clip:
        return Totals(total, np.full(total.shape, np.nan))
    return Totals(total, np.divide(left, total, out=ratio, where=np.isfinite(total) & (total > 0)))


def _extent(values: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return the number of values of each tensor that are not 0, then the largest magnitudes (NaN where one is)."""
    return [*torch._foreach_norm(values, 0, dtype=dtype), *torch._foreach_max(torch._foreach_abs(values))]


def _extent_on_cpu(values: list[Tensor], _: torch.dtype) -> list[Tensor]:
    """Do the same as `_extent`: these kernels are twice as fast there, and need no memory."""
    counts = [torch.count_nonzero(value) for value in values]
    lows, highs = zip(*[torch.aminmax(value) for value in values], strict=True)
    return [*counts, *torch._foreach_maximum(list(highs), torch._foreach_neg(list(lows)))]


def has_values(parameter: Tensor) -> bool:
    """Tell whether there is anything to measure: not for an empty part, nor before a lazy module's first forward."""
    return not is_lazy(parameter) and local_part(parameter).numel() > 0


def _real(tensor: Tensor) -> Tensor:
    """Return a tensor whose values have the norm: those a sparse one stores, real and imaginary part of a complex one."""
    if tensor.is_sparse:
        tensor = tensor.coalesce().values()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor
