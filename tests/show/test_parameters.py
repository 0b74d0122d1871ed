from __future__ import annotations

import functools
import re

import numpy as np
import pytest
import torch
from torch import nn

from actograph.errors import UsageError
from actograph.observe.watch import watch
from actograph.rules.diagnose import diagnose
from actograph.runlog.view import RunView
from actograph.show.layers import gradient_curves
from actograph.show.parameters import GradientView, gradient_norm, parameter_map
from actograph.show.report import GRADIENT_LABEL, render


@functools.cache
def trained(*, grad: bool = True, gradients: bool = True, clip: float = 0.3, scale: float = 1.0) -> RunView:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, ":memory:", budget=None, grad=grad, gradients=gradients) as recording:
        for _ in range(12):
            loss = model(torch.randn(16, 4)).square().mean() * scale
            recording.loss(loss)
            loss.backward()
            recording.gradients()
            nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return recording.view()


def without_scripts(page: str) -> str:
    return re.sub(r"<script.*?</script>", "", page, flags=re.DOTALL)


def test_the_map_draws_the_logarithm_of_what_the_view_says() -> None:
    view = trained()
    (cells,) = parameter_map(view, "update_ratio").data
    np.testing.assert_allclose(cells.z, np.log10(view.parameters.column("update_ratio")).T, rtol=1e-5)
    np.testing.assert_allclose(cells.customdata, view.parameters.column("update_ratio").T, rtol=1e-5)
    assert list(cells.y) == view.parameters.names
    assert len(cells.x) == 12 + 1
    assert GradientView(view).plot("grad_norm").data[0].y == cells.y


def test_clipping_is_drawn_where_there_was_any() -> None:
    clipped, free = trained(), trained(clip=1e9)
    norm, ratio = gradient_norm(clipped).data
    np.testing.assert_array_equal(norm.y, clipped.scalar("grad_norm").values)
    np.testing.assert_array_equal(ratio.y, clipped.scalar("clip_ratio").values)
    assert len(GradientView(free).plot_norm().data) == 1


def test_gradients_that_are_not_finite_are_drawn_as_gaps() -> None:
    view = trained(scale=float("inf"))
    assert gradient_norm(view).layout.yaxis.range is None
    names = [line.name for line in gradient_curves(view.gradients, "0").data]
    assert "NaN, Inf" in names


def test_curves_of_a_layers_gradient_are_those_of_the_view() -> None:
    gradients = trained().gradients
    largest, rms, zeros = gradient_curves(gradients, "1").data
    np.testing.assert_allclose(rms.y, gradients.column("rms")[:, 1], rtol=1e-6)
    lowest, highest = gradients.column("min")[:, 1], gradients.column("max")[:, 1]
    np.testing.assert_allclose(largest.y, np.maximum(-lowest, highest), rtol=1e-6)
    np.testing.assert_allclose(zeros.y, gradients.column("zeros")[:, 1], rtol=1e-6)


def test_the_report_shows_gradients_where_they_were_recorded() -> None:
    page = render(trained(), diagnose(trained()))
    text = without_scripts(page)
    for figure in (
        "gradient-norm",
        "update-ratio",
        "parameter-gradients",
        "map-gradient",
        "gradient-0",
        "gradient-2",
    ):
        assert f'id="{figure}"' in page, figure
    assert GRADIENT_LABEL in text
    assert 'href="#parameters"' in text


@pytest.mark.parametrize(
    ("grad", "gradients", "there", "absent"),
    [
        (True, False, 'id="gradient-0"', 'id="parameters"'),
        (False, True, 'id="parameters"', 'id="gradient-0"'),
    ],
)
def test_the_report_leaves_out_what_was_not_recorded(
    grad: bool, gradients: bool, there: str, absent: str
) -> None:
    view = trained(grad=grad, gradients=gradients)
    page = render(view, diagnose(view))
    assert there in page
    assert absent not in page
    assert 'id="map-gradient"' in page or not grad


def test_rules_and_layers_are_about_activations() -> None:
    with_gradients, without = trained(), trained(grad=False, gradients=False)
    assert with_gradients.layers == without.layers
    np.testing.assert_array_equal(with_gradients.rows, without.rows)
    assert diagnose(with_gradients) == diagnose(without)
    assert GradientView(without).names == []


def test_a_statistic_that_is_not_there_is_answered() -> None:
    with pytest.raises(UsageError, match="no statistic 'mean'"):
        parameter_map(trained(), "mean")
