"""The largest eigenvalue of a loss's Hessian, its sharpness: from Hessian-vector products, by Lanczos' method.

No idea of trainings. The Hessian, (parameters, parameters), is never formed: one product costs about two backward passes.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Product: TypeAlias = Callable[[Tensor], Tensor]  # of a symmetric matrix with a vector, (n,) -> (n,)

MAX_PRODUCTS = 30
TOLERANCE = 0.05  # relative, of the eigenvalue; seeds differ by far more
START_SEED = 0  # of the random vector that Lanczos begins with


def sharpness(
    model: nn.Module,
    loss_func: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    y: Tensor,
    preconditioner: Tensor | None = None,
) -> float:
    """Return the largest eigenvalue of the Hessian H of the loss of these samples by the trainable parameters.

    A copy of the model in training mode is measured, as the optimizer sees it: normalizations take these samples'
    statistics, and dropout one mask. ``preconditioner`` P, (parameters,), all positive, gives that of P^-1 H instead,
    which for Adam takes the place of H (Cohen et al. 2022). NaN where the loss or its gradient is not finite.
    """
    copied = copy.deepcopy(
        model
    ).train()  # without hooks: nothing is recorded, and no statistic of a normalization moves
    devices = [x.device] if x.is_cuda else []
    with torch.random.fork_rng(devices), torch.enable_grad():
        product = hessian_product(copied, loss_func, x, y)
        if product is None:
            return math.nan
        size = sum(parameter.numel() for parameter in _trainable(copied))
        if preconditioner is None:
            return largest_eigenvalue(product, size, x.device)
        scale = preconditioner.rsqrt()  # P^-1/2 H P^-1/2 is symmetric, and has the eigenvalues of P^-1 H
        return largest_eigenvalue(lambda vector: scale * product(scale * vector), size, x.device)


def hessian_product(
    model: nn.Module, loss_func: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor
) -> Product | None:
    """Return what multiplies the Hessian with a vector, (parameters,); None where the gradient is not finite."""
    parameters = _trainable(model)
    loss = loss_func(model(x), y)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    if not all(bool(gradient.isfinite().all()) for gradient in gradients):
        return None
    gradient = torch.cat([one.reshape(-1) for one in gradients])

    def product(vector: Tensor) -> Tensor:
        if not gradient.requires_grad:  # of a network without a path to the loss
            return torch.zeros_like(vector)
        parts = torch.autograd.grad(gradient @ vector, parameters, retain_graph=True, materialize_grads=True)
        return torch.cat([part.reshape(-1) for part in parts])

    return product


def largest_eigenvalue(
    product: Product,
    size: int,
    device: torch.device | None = None,
    *,
    max_products: int = MAX_PRODUCTS,
    tolerance: float = TOLERANCE,
) -> float:
    """Return the largest eigenvalue of a symmetric matrix (size, size), by Lanczos with full reorthogonalization.

    It stops when the residual says that the value lies within ``tolerance`` of an eigenvalue, relatively.

    >>> round(largest_eigenvalue(lambda vector: torch.tensor([3.0, -5.0]) * vector, 2), 3)
    3.0
    """
    generator = torch.Generator().manual_seed(START_SEED)
    vector = torch.randn(size, generator=generator).to(device)
    basis = [vector / vector.norm()]
    diagonal: list[float] = []
    beside: list[float] = []
    value = math.nan
    for _ in range(min(max_products, size)):
        following = product(basis[-1])
        diagonal.append(float(following @ basis[-1]))
        for _ in range(2):  # twice is enough (Parlett): rounding brings old directions back
            known = torch.stack(basis)  # (k, size)
            following = following - known.T @ (known @ following)
        rest = float(following.norm())
        values, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1))
        value = float(values[-1])
        if not math.isfinite(rest) or rest * abs(vectors[-1, -1]) <= tolerance * abs(value):
            break
        beside.append(rest)
        basis.append(following / rest)
    return value


def adam_preconditioner(optimizer: torch.optim.Optimizer) -> Tensor:
    """Return sqrt(v / (1 - beta2^t)) + eps, (parameters,), of an Adam that has made t > 0 steps."""
    parts = []
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state:  # a parameter that never had a gradient has none, and does not move
                unbiased = state["exp_avg_sq"] / (1 - group["betas"][1] ** float(state["step"]))
                parts.append((unbiased.sqrt() + group["eps"]).reshape(-1))
            elif parameter.requires_grad:
                parts.append(torch.full((parameter.numel(),), math.inf, device=parameter.device))
    return torch.cat(parts)


def adam_bound(lr: float, beta1: float) -> float:
    """Return the preconditioned sharpness beyond which Adam is unstable on a quadratic: (2 + 2 b) / ((1 - b) lr).

    >>> round(adam_bound(0.1, 0.9), 6)
    380.0
    """
    return (2 + 2 * beta1) / ((1 - beta1) * lr)


def _trainable(model: nn.Module) -> list[Tensor]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
