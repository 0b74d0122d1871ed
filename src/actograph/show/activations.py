"""`ActivationView`: what every layer's output did, by position or name, during training and after.

No idea of hooks or files: it reads a run view.
"""

from __future__ import annotations

from typing import NamedTuple

import plotly.graph_objects as go

from actograph.layout.row import Floats
from actograph.runlog.view import RunView
from actograph.show.layers import color_dim, layer_curves
from actograph.show.spectrum import mean_log_counts
from actograph.show.timeaxis import step_middles


class LayerStats(NamedTuple):
    """One layer over time, each (T,); NaN where nothing finite was seen."""

    mean: Floats
    std: Floats  # unbiased
    near_zero: Floats  # share of values with |x| <= 0.05, of either sign


class ActivationView:
    """The recorded activations of a run. A layer is given by position (negative too) or by name."""

    def __init__(self, view: RunView) -> None:
        self.view = view

    def __len__(self) -> int:
        return len(self.view.layers)

    @property
    def names(self) -> list[str]:
        """Layer names in the order of their first call."""
        return [layer.name for layer in self.view.layers]

    @property
    def steps(self) -> Floats:
        """Step of each recorded bucket (T,): the middle one where old steps have merged."""
        return step_middles(self.view)

    @property
    def gradients(self) -> ActivationView:
        """The same of the gradients by these outputs; without layers where none were recorded (``grad=True``)."""
        return ActivationView(self.view.gradients)

    def layer_stats(self, layer: int | str) -> LayerStats:
        """Return mean, standard deviation and near-zero share of a layer over time."""
        index = self.view.layer_index(layer)
        return LayerStats(*(self.view.column(name)[:, index] for name in LayerStats._fields))

    def hist(self, layer: int | str) -> Floats:
        """Return the histogram over time (NUM_BINS, T): log1p of each bin's mean count per recorded step, low bin first.

        As in fastai rows are bins and counts are logarithmic; the bins are those of `actograph.layout.bins`, both signs
        and all magnitudes. While no steps have merged, ``np.expm1`` gives back the counts.
        """
        return mean_log_counts(self.view, layer)

    def plot_layer_stats(self, layer: int | str) -> go.Figure:
        """Draw mean, spread and shares of a layer over time."""
        return layer_curves(self.view, layer)

    def color_dim(self, layer: int | str) -> go.Figure:
        """Draw the colorful dimension of a layer: its histogram over time."""
        return color_dim(self.view, layer)
