"""Which axis of a module's output counts its units.

No idea of recording. A module that makes units says itself where they are; any other (an activation, a dropout) keeps the
axis of the module that produced its input.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils.weak import WeakIdKeyDictionary

LAST_AXIS: tuple[type[nn.Module], ...] = (
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.Linear,
    nn.MultiheadAttention,
    nn.RMSNorm,
    nn.RNNBase,
    nn.RNNCellBase,
)
POOLS = {
    1: (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d, nn.AdaptiveMaxPool1d, nn.LPPool1d),
    2: (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.LPPool2d),
    3: (nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d, nn.AdaptiveMaxPool3d),
}


class ChannelAxes:
    """Remembers, while they live, which axis of each produced tensor counts units."""

    def __init__(self) -> None:
        self._axis_of = WeakIdKeyDictionary()
        self._latest: tuple[int, int] | None = (
            None  # number of axes and which counts units, of the latest output
        )

    def find(self, module: nn.Module, inputs: tuple[object, ...], output: Tensor) -> int | None:
        """Return the axis (not negative) of a module's output, None for a scalar, and remember it."""
        axis = _own_axis(module, output)
        if axis is None:
            axis = next((self._known(x, output) for x in inputs if isinstance(x, Tensor)), None)
        if axis is None and self._latest is not None and self._latest[0] == output.ndim:
            axis = self._latest[1]  # in compiled code no tensor is known again: take it from the layer before
        if axis is None:
            axis = _usual_axis(output)
        if axis is not None:
            self._axis_of[output] = axis
        return axis

    def note_latest(self, output: Tensor, axis: int | None) -> None:
        """Remember the axis of an output for the next layer, whose inputs will not be known."""
        self._latest = None if axis is None else (output.ndim, axis)

    def _known(self, x: Tensor, output: Tensor) -> int | None:
        return int(self._axis_of[x]) if x in self._axis_of and x.ndim == output.ndim else None


def _own_axis(module: nn.Module, output: Tensor) -> int | None:
    if output.ndim == 0:
        return None
    if isinstance(module, LAST_AXIS):
        return output.ndim - 1
    if isinstance(module, _ConvNd):
        return output.ndim - len(module.kernel_size) - 1
    if isinstance(module, (_NormBase, nn.GroupNorm)) and output.ndim > 1:
        return 1
    for num_spatial, kinds in POOLS.items():
        if isinstance(module, kinds):
            return output.ndim - num_spatial - 1
    return None


def _usual_axis(output: Tensor) -> int | None:
    """Guess for an output whose producer was not seen: images have channels second, everything else last."""
    if output.ndim == 0:
        return None
    return 1 if output.ndim in (4, 5) else output.ndim - 1
