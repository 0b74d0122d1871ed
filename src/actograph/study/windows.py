"""What the windows of a first convolution hold, what its filters keep of it, and how far later layers see.

No idea of trainings. All is computed in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Matrix = NDArray[np.float64]

NEGLIGIBLE = (
    1e-3  # of the largest singular value: less does not count for the numerical rank (float32 errs by 1e-7)
)
MOST = 0.99  # of the variance: in how many directions it lies


def effective_rank(singular_values: Matrix) -> float:
    """Return the exponential of the entropy of the singular values' shares (n,): NaN for none, or not finite ones.

    Roy and Vetterli 2007, "The effective rank", section 2: from 1, all in one direction, to n, equal in all.

    >>> round(effective_rank(np.array([1.0, 1.0, 1.0])), 6), round(effective_rank(np.array([5.0, 0.0])), 6)
    (3.0, 1.0)
    """
    total = singular_values.sum()
    if not np.isfinite(total) or total <= 0:
        return float("nan")
    shares = singular_values[singular_values > 0] / total
    return float(np.exp(-(shares * np.log(shares)).sum()))


def numerical_rank(singular_values: Matrix) -> float:
    """Count the singular values (n,) that are not negligible beside the largest; NaN where one is not finite.

    >>> numerical_rank(np.array([1.0, 0.5, 1e-9]))
    2.0
    """
    if not np.isfinite(singular_values).all():
        return float("nan")
    return float((singular_values > NEGLIGIBLE * singular_values.max(initial=0.0)).sum())


def directions_of_most(singular_values: Matrix) -> float:
    """Count the directions, largest first, that hold 99 % of the variance; NaN where there is none.

    >>> directions_of_most(np.array([0.1, 10.0, 0.1]))
    1.0
    """
    variance = np.sort(singular_values**2)[::-1]
    if not np.isfinite(variance).all() or variance.sum() <= 0:
        return float("nan")
    return float(np.searchsorted(np.cumsum(variance) / variance.sum(), MOST) + 1)


def spread(rows: Matrix) -> tuple[Matrix, Matrix]:
    """Return the covariance (d, d) of rows (n, d), and the singular values (d,) of the centred rows over sqrt(n)."""
    centred = rows - rows.mean(axis=0)
    covariance = centred.T @ centred / len(rows)
    if not np.isfinite(covariance).all():
        return covariance, np.full(len(covariance), np.nan)
    return covariance, np.sqrt(np.maximum(np.linalg.eigvalsh(covariance), 0.0))


def kept_share(covariance: Matrix, filters: Matrix) -> float:
    """Return the share of the variance of windows (d, d) that lies in the directions of the filters (f, d).

    What lies outside of them the answers at this window do not tell; overlapping windows may.

    >>> kept_share(np.diag([3.0, 1.0]), np.array([[2.0, 0.0]]))
    0.75
    """
    if not (np.isfinite(covariance).all() and np.isfinite(filters).all()):
        return float("nan")
    _, sizes, directions = np.linalg.svd(filters, full_matrices=False)
    basis = directions[sizes > NEGLIGIBLE * sizes.max(initial=0.0)]
    total = np.trace(covariance)
    return float(np.trace(basis @ covariance @ basis.T) / total) if total > 0 else float("nan")


def best_share(covariance: Matrix, num_filters: int) -> float:
    """Return the largest share of the variance (d, d) that so many filters can keep: that of the first principal axes."""
    variances = np.linalg.eigvalsh(covariance)[::-1]
    return float(variances[:num_filters].sum() / variances.sum()) if variances.sum() > 0 else float("nan")


def windows_of(conv: nn.Conv2d, images: Tensor) -> Matrix:
    """Return what the convolution's windows see of images (b, c, h, w), padding included: (b * positions, inputs)."""
    assert conv.groups == 1
    assert not isinstance(conv.padding, str)
    columns = functional.unfold(images.double(), conv.kernel_size, conv.dilation, conv.padding, conv.stride)
    windows: Matrix = columns.transpose(1, 2).reshape(-1, columns.shape[1]).cpu().numpy()
    return windows


@torch.no_grad()
def first_layer(block: nn.Sequential, images: Tensor) -> dict[str, float]:
    """Measure a first block, a convolution and what follows up to its activation, on images (b, c, h, w), as in inference.

    ``responses`` are the convolution's outputs at all positions, ``outputs`` what leaves the block.
    """
    double = copy.deepcopy(block).double().eval()
    conv = double[0]
    assert isinstance(conv, nn.Conv2d)
    covariance, of_windows = spread(windows_of(conv, images))
    filters: Matrix = conv.weight.flatten(1).cpu().numpy()
    measured = {
        "windows_rank": effective_rank(of_windows),
        "windows_most": directions_of_most(of_windows),
        "best": best_share(covariance, len(filters)),
        "kept": kept_share(covariance, filters),
    }
    x = images.to(conv.weight.device).double()
    spectra: dict[str, Matrix] = {
        "filters": _singular_values(filters),
        "responses": _spectrum(conv(x)),
        "outputs": _spectrum(double(x)),
    }
    for name, values in spectra.items():
        measured[f"{name}_rank"] = effective_rank(values)
        measured[f"{name}_numerical"] = numerical_rank(values)
    measured["outputs_most"] = directions_of_most(spectra["outputs"])
    return measured


def _singular_values(matrix: Matrix) -> Matrix:
    if not np.isfinite(matrix).all():
        return np.full(min(matrix.shape), np.nan)
    return np.asarray(np.linalg.svd(matrix, compute_uv=False), np.float64)


def _spectrum(y: Tensor) -> Matrix:
    """Return the singular values of the filters' outputs (b, f, h, w) over all samples and positions."""
    return spread(y.transpose(0, 1).flatten(1).T.cpu().numpy())[1]


def receptive_field(convs: Sequence[nn.Conv2d]) -> list[int]:
    """Return how many pixels of a side one output of each layer depends on: 1 + the sum of d (k - 1) strides before.

    k, d: kernel and dilation of a layer; the strides of all layers before it are multiplied.

    >>> receptive_field([nn.Conv2d(1, 8, 5, stride=2), nn.Conv2d(8, 16, 3, stride=2)])
    [5, 9]
    """
    field, jump, fields = 1, 1, []
    for conv in convs:
        field += conv.dilation[0] * (conv.kernel_size[0] - 1) * jump
        jump *= conv.stride[0]
        fields.append(field)
    return fields


def measured_field(convs: Sequence[nn.Conv2d]) -> list[int]:
    """Return the same by gradient: the side of the square in which one output's gradient by the image is not zero.

    With equal positive weights, so that nothing cancels out, and on an image that is wide enough.
    """
    side = 2 * max(receptive_field(convs))
    image = torch.ones(1, 1, side, side, dtype=torch.float64, requires_grad=True)
    fields, x = [], image
    for conv in convs:
        assert not isinstance(conv.padding, str)
        weight = torch.full(
            (1, 1, *conv.kernel_size), 1 / (conv.kernel_size[0] * conv.kernel_size[1])
        ).double()
        x = functional.conv2d(x, weight, None, conv.stride, conv.padding, conv.dilation)
        middle = x[0, 0, x.shape[2] // 2, x.shape[3] // 2]
        (gradient,) = torch.autograd.grad(middle, image, retain_graph=True)
        rows = gradient[0, 0].any(dim=1).nonzero()
        fields.append(int(rows.max() - rows.min()) + 1)
    return fields
