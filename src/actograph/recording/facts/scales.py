"""`ScaleFacts`: how large weights are at the start, and their gradients after steps 0, 1, 2, 4, 8, ...

No idea of layers' outputs. It looks at matrices and kernels (the first `MAX_SUBJECTS` of them) and the biases beside them; a
look takes as long as a gradient's norm, and there are as many as the run's length has binary digits.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass, field
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from actograph.hooks.leaves import ROOT_NAME
from actograph.layout.row import Floats
from actograph.runlog.facts import MAX_SUBJECTS, FactKind, FactTable, Value
from actograph.sketch.observe import is_measurable
from actograph.train.waiting import Waiting

NUM_LOOKED_AT = (
    4  # of a gradient: norm, number of values that are not 0, largest magnitude; and the weight's norm
)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
NONE = -1.0  # in place of the size of a bias where there is none


@dataclass
class _Weight:
    name: str
    parameter: ref[Tensor]
    bias: ref[Tensor] | None
    fan_in: int
    shape: tuple[int, ...]
    dtype: torch.dtype
    size: int  # number of values
    data: dict[str, Value] = field(default_factory=dict)
    looks: dict[str, list[float]] = field(default_factory=dict)

    def add(self, step: int, numbers: Floats) -> None:
        norm, num_others, largest, weight_norm = (float(number) for number in numbers)
        size = self.size
        values = {
            "steps": float(step),
            "grad_rms": norm / size**0.5,
            "grad_zeros": 1.0 - num_others / size,
            "grad_max": largest,
            "weight_rms": weight_norm / size**0.5,
        }
        for name, value in values.items():
            self.looks.setdefault(name, []).append(value)


class ScaleFacts:
    """Told of models, of forwards and of updates."""

    def __init__(self, table: FactTable) -> None:
        self._table = table
        self._new: list[_Weight] = []  # whose size at the start is not known yet
        self._weights: MutableMapping[Tensor, _Weight] = WeakIdKeyDictionary()  # by parameter
        self._num_weights = 0  # subjects noted
        self._num_updates: dict[int, int] = {}  # by number of the optimizer
        self._starts = Waiting[tuple[list[_Weight], int]]()
        self._looks = Waiting[tuple[list[_Weight], int]]()

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model's weights into account."""
        for name, module in model.named_modules():
            for key, parameter in module.named_parameters(recurse=False):
                is_new = _is_weight(module, parameter) and parameter not in self._weights
                if is_new and self._num_weights < MAX_SUBJECTS:
                    bias = getattr(module, "bias", None)
                    weight = _Weight(
                        f"{prefix}{name or ROOT_NAME}.{key}",
                        ref(parameter),
                        ref(bias) if isinstance(bias, nn.Parameter) else None,
                        _fan_in(module, parameter),
                        tuple(parameter.shape),
                        parameter.dtype,
                        parameter.numel(),
                    )
                    self._weights[parameter] = weight
                    self._num_weights += 1
                    self._new.append(weight)

    @torch.no_grad()
    def enter(self, step: int) -> None:
        """Measure the weights as a first forward finds them."""
        if not self._new:
            return
        new, self._new = self._new, []
        self._table.look(FactKind.SCALE, step)
        found = [(weight, parameter) for weight in new if (parameter := weight.parameter()) is not None]
        for device in {parameter.device for _, parameter in found}:
            here = [(weight, parameter) for weight, parameter in found if parameter.device == device]
            numbers = [
                *_norms([parameter for _, parameter in here]),
                *[_largest(weight.bias() if weight.bias else None, device) for weight, _ in here],
            ]
            self._starts.add(([weight for weight, _ in here], step), torch.stack(numbers))

    @torch.no_grad()
    def after_update(self, number: int, optimizer: torch.optim.Optimizer, step: int) -> None:
        """Measure the gradients that an update was made with, if it is time; optimizers are told apart by number."""
        count = self._num_updates.get(number, 0)
        self._num_updates[number] = count + 1
        if count & (count - 1):  # neither 0 nor a power of two
            return
        found: dict[torch.device, list[tuple[_Weight, Tensor]]] = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                weight = self._weights.get(parameter) if parameter.ndim > 1 else None
                if weight is not None and _has_gradient(parameter):
                    found.setdefault(parameter.device, []).append((weight, parameter))
        for here in found.values():
            self._table.look(FactKind.SCALE, step)
            numbers = _numbers([parameter for _, parameter in here])
            self._looks.add(([weight for weight, _ in here], step), numbers)

    def drain(self, *, waits: bool = True) -> None:
        """Note what waited on the device."""
        for (weights, _), numbers in self._starts.take(waits=waits):
            norms, biases = numbers.reshape(2, -1)
            for weight, norm, bias in zip(weights, norms, biases, strict=True):
                weight.data = _start(weight, float(norm), float(bias))
                self._table.note(FactKind.SCALE, weight.name, 0, **weight.data)
        for (weights, step), numbers in self._looks.take(waits=waits):
            for weight, row in zip(weights, numbers.reshape(NUM_LOOKED_AT, -1).T, strict=True):
                weight.add(step, row)
                self._table.note(FactKind.SCALE, weight.name, step, **weight.data, **weight.looks)

    def forget(self) -> None:
        """Let go of optimizers."""
        self._num_updates.clear()


def _start(weight: _Weight, norm: float, bias: float) -> dict[str, Value]:
    return {
        "shape": str(weight.shape),
        "dtype": str(weight.dtype).removeprefix("torch."),
        "fan_in": float(weight.fan_in),
        "rms": norm / weight.size**0.5,
        **({} if bias == NONE else {"bias_max": bias}),
    }


def _numbers(parameters: Sequence[Tensor]) -> Tensor:
    gradients = [parameter.grad for parameter in parameters]
    present = [gradient for gradient in gradients if gradient is not None]
    numbers = [
        *_norms(present),
        *[torch.count_nonzero(gradient).to(torch.float32) for gradient in present],
        *[gradient.abs().amax().to(torch.float32) for gradient in present],
        *_norms(parameters),
    ]
    return torch.stack(numbers)


def _norms(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the norm of each as float32, computed in no less: float16 would overflow."""
    is_double = any(tensor.dtype is torch.float64 for tensor in tensors)
    widest = torch.float64 if is_double else torch.float32
    return [norm.to(torch.float32) for norm in torch._foreach_norm(list(tensors), 2, dtype=widest)]


def _largest(bias: Tensor | None, device: torch.device) -> Tensor:
    if bias is None or not is_measurable(bias) or bias.device != device or not bias.numel():
        return torch.full((), NONE, device=device)
    return bias.abs().amax().to(torch.float32)


def _has_gradient(parameter: Tensor) -> bool:
    gradient = parameter.grad
    return (
        gradient is not None
        and gradient.layout is torch.strided
        and gradient.device == parameter.device
        and is_measurable(gradient)
    )


def _is_weight(module: nn.Module, parameter: Tensor) -> bool:
    is_matrix = parameter.ndim > 1 and not isinstance(module, (nn.Embedding, nn.EmbeddingBag))
    return (
        is_matrix
        and not nn.parameter.is_lazy(parameter)
        and parameter.numel() > 0
        and is_measurable(parameter)
    )


def _fan_in(module: nn.Module, parameter: Tensor) -> int:
    """Return how many values each output is a sum of."""
    per_output = parameter.numel() // parameter.shape[0]
    if isinstance(module, TRANSPOSED):
        return max(parameter.numel() // parameter.shape[1] // module.groups // _product(module.stride), 1)
    return per_output


def _product(values: Sequence[int]) -> int:
    product = 1
    for value in values:
        product *= value
    return product
