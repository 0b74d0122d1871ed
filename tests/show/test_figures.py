from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from actograph.rules.diagnose import diagnose
from actograph.runlog.view import STATISTICS, RunView
from actograph.show import theme
from actograph.show.evidence import finding_figure, run_loss, run_schedule
from actograph.show.figures import heat_map, loss_curve, schedule_curves, short_name
from actograph.show.layers import SHORT_LABELS, color_dim, layer_curves
from actograph.show.spectrum import spectrum
from actograph.show.timeaxis import boundaries, step_edges, step_middles
from actograph.testing.synthetic import SyntheticRun, layer

from .runs import EPOCH_STEPS, NAN_STEPS, STEPS, healthy_run, sick_run


@pytest.fixture(scope="module")
def view() -> RunView:
    return healthy_run()


@pytest.fixture(scope="module")
def sick() -> RunView:
    return sick_run()


def trace(figure: Any, name: str) -> Any:
    return next(one for one in figure.data if one.name == name)


def test_loss_curve_draws_what_it_is_given() -> None:
    steps, losses = np.arange(4), np.array([3.0, 2.0, np.nan, 1.0])
    figure = loss_curve(steps, losses, losses / 2, valid=([3], [1.5]))
    assert np.array_equal(trace(figure, "training").y, losses, equal_nan=True)
    assert np.array_equal(trace(figure, "smoothed").y, losses / 2, equal_nan=True)
    assert list(trace(figure, "validation").x) == [3]
    assert figure.layout.xaxis.title.text == "step"
    assert figure.layout.yaxis.title.text == "loss"
    assert figure.layout.yaxis.type == "linear"


def test_a_loss_over_decades_gets_a_logarithmic_axis() -> None:
    assert loss_curve([0, 1, 2], [1e4, 3.0, 1.0]).layout.yaxis.type == "log"
    assert loss_curve([0, 1, 2], [1e4, 3.0, -1.0]).layout.yaxis.type == "linear"


def test_the_runs_loss_is_marked_where_it_stops_being_finite(sick: RunView) -> None:
    figure = run_loss(sick)
    assert any(f"step {STEPS - NAN_STEPS}" in note.text for note in figure.layout.annotations)


def test_epochs_are_marked_where_they_begin(view: RunView) -> None:
    assert [mark.step for mark in boundaries(view)] == [EPOCH_STEPS * n for n in (1, 2, 3, 4)]
    labels = [note.text for note in run_loss(view).layout.annotations]
    assert labels == [f"epoch {n}" for n in (1, 2, 3, 4)]


def test_many_epochs_are_thinned_and_a_second_fit_is_named() -> None:
    run = SyntheticRun([])
    for epoch in range(60):
        run.writer.add_event(epoch * 10, "phase", name="train", fit=epoch // 30, epoch=epoch % 30)
        run.writer.add_event(epoch * 10 + 9, "phase", name="valid", fit=epoch // 30, epoch=epoch % 30)
    assert len(boundaries(run.view())) <= 12
    few = SyntheticRun([])
    for fit in (0, 1):
        few.writer.add_event(fit * 10, "phase", name="train", fit=fit, epoch=0)
    assert boundaries(few.view()) == [(10, "fit 1")]


def test_schedules_have_a_panel_each_and_groups_share_one() -> None:
    steps = np.arange(3)
    figure = schedule_curves(steps, {"lr": [1, 2, 3], "lr.1": [4, 5, 6], "momentum": [0.9, 0.8, 0.9]})
    titles = [figure.layout[axis].title.text for axis in ("yaxis", "yaxis2")]
    assert titles == ["lr", "momentum"]
    assert [one.yaxis for one in figure.data] == ["y", "y", "y2"]
    assert figure.layout.xaxis2.title.text == "step"


def test_run_schedule_draws_rate_and_momentum(view: RunView) -> None:
    figure = run_schedule(view)
    assert np.array_equal(trace(figure, "lr").y, view.scalar("lr").values)
    assert np.array_equal(trace(figure, "momentum").x, view.scalar("momentum").steps)


@pytest.mark.parametrize("statistic", sorted(STATISTICS))
def test_heat_map_holds_the_statistic_of_every_layer(sick: RunView, statistic: str) -> None:
    figure = heat_map(sick, statistic)
    [cells] = figure.data
    shown = cells.z if cells.customdata is None else cells.customdata
    assert np.allclose(shown, sick.column(statistic).T, rtol=1e-6, equal_nan=True)
    assert list(cells.y) == [info.name for info in sick.layers]
    assert np.array_equal(cells.x, step_edges(sick))
    assert STATISTICS[statistic].label in figure.layout.title.text
    assert figure.layout.xaxis.title.text == "step"
    assert np.array_equal(np.isnan(cells.z), np.isnan(sick.column(statistic).T))  # undefined is blank


def test_heat_map_colours_shares_alike_and_signed_numbers_about_zero(sick: RunView) -> None:
    [shares] = heat_map(sick, "near_zero").data
    assert (shares.zmin, shares.zmax) == (0, 1)
    [means] = heat_map(sick, "mean").data
    assert means.zmin == -means.zmax < 0


def test_step_edges_have_the_true_width_of_every_bucket(view: RunView) -> None:
    edges = step_edges(view)
    assert len(edges) == len(view.buckets) + 1
    assert np.array_equal(np.diff(edges), view.num_recorded)  # every step was recorded
    assert np.all((edges[:-1] < step_middles(view)) & (step_middles(view) < edges[1:]))
    assert (edges[0], edges[-1]) == (-0.5, STEPS - 0.5)


def test_layer_curves_draw_the_views_columns(sick: RunView) -> None:
    figure = layer_curves(sick, "stem.relu")
    index = sick.layer_index("stem.relu")
    for name in ("mean", "std", "near_zero", "zeros", "flat", "dead"):
        expected = sick.column(name)[:, index]
        drawn = trace(figure, SHORT_LABELS.get(name, STATISTICS[name].label))
        assert np.allclose(drawn.y, expected, rtol=1e-6, equal_nan=True), name
        assert np.array_equal(drawn.x, step_middles(sick))
    titles = [figure.layout[axis].title.text for axis in ("yaxis", "yaxis2", "yaxis3")]
    assert titles == ["mean and 5-95 %", "std", "share"]
    assert figure.layout.xaxis3.title.text == "step"


def test_layer_curves_show_non_finite_only_where_there_is_any(sick: RunView) -> None:
    label = SHORT_LABELS["non_finite"]
    assert label in [one.name for one in layer_curves(sick, -1).data]
    assert label not in [one.name for one in layer_curves(sick, 0).data]


def test_color_dim_holds_the_histogram_and_leaves_nothing_blank_for_zero_counts(view: RunView) -> None:
    figure = color_dim(view, "layers.0.conv")
    [cells] = figure.data
    rows = spectrum(view, "layers.0.conv")
    assert np.array_equal(np.isnan(cells.z), rows.log_counts == 0)
    assert np.allclose(np.nan_to_num(cells.z), rows.log_counts, rtol=1e-6)
    assert np.array_equal(cells.x, step_edges(view))
    assert "activation" in figure.layout.yaxis.title.text
    assert {"0", "1"} <= set(figure.layout.yaxis.ticktext)
    assert "1" in cells.colorbar.ticktext


def test_color_dim_as_picture_has_the_same_axes(view: RunView) -> None:
    whole, small = color_dim(view, 0), color_dim(view, 0, picture="data:,")
    assert small.layout.yaxis == whole.layout.yaxis
    assert small.layout.xaxis == whole.layout.xaxis
    [image] = small.layout.images
    rows, edges = spectrum(view, 0), step_edges(view)
    assert (image.x, image.y) == (edges[0], rows.edges[-1])
    assert (image.sizex, image.sizey) == (edges[-1] - edges[0], rows.edges[-1] - rows.edges[0])


def test_figures_of_an_empty_run_are_empty() -> None:
    empty = SyntheticRun([layer("a", "Linear", 4)]).view()
    assert not heat_map(empty, "mean").data
    assert not color_dim(empty, "a").data
    assert len(layer_curves(empty, "a").data[0].x) == 0
    assert not run_schedule(empty).data
    assert len(run_loss(empty).data[0].x) == 0


def test_every_finding_of_a_sick_run_has_its_figure(sick: RunView) -> None:
    findings = diagnose(sick).findings
    assert findings
    for finding in findings:
        figure = finding_figure(sick, finding)
        regions = [shape for shape in figure.layout.shapes if shape.type == "rect"]
        assert [(one.x0 + 0.5, one.x1 - 0.5) for one in regions] == [(finding.first_step, finding.last_step)]


def test_layer_names_cannot_smuggle_markup() -> None:
    assert short_name("<b>x</b>") == "&lt;b&gt;x&lt;/b&gt;"
    assert len(short_name("a" * 80)) <= 20


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [theme.LIGHT_PALETTE, theme.DARK_PALETTE])
def test_lines_and_text_have_contrast_on_both_papers(palette: theme.Palette) -> None:
    assert contrast(palette.ink, palette.paper) >= 7  # WCAG 2.2 AAA
    assert contrast(palette.muted, palette.paper) >= 4.5  # AA, text
    for line in theme.LINES:
        assert contrast(line, palette.paper) >= 3, line  # AA, graphics


def test_darkened_leaves_the_figure_alone(view: RunView) -> None:
    figure = run_loss(view)
    dark = theme.darkened(figure)
    assert dark.layout.template.layout.paper_bgcolor == theme.DARK_PALETTE.paper
    assert figure.layout.template.layout.paper_bgcolor == theme.LIGHT_PALETTE.paper
    assert np.array_equal(dark.data[0].y, figure.data[0].y)
