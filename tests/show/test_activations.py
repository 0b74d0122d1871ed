from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actograph.errors import RunNotFoundError, UsageError
from actograph.layout.bins import NUM_BINS
from actograph.runlog.view import RunView
from actograph.show.activations import ActivationView
from actograph.show.run import open_run

from .runs import healthy_run


@pytest.fixture(scope="module")
def view() -> RunView:
    return healthy_run()


def test_layer_stats_are_the_views_columns(view: RunView) -> None:
    stats = ActivationView(view).layer_stats(2)
    assert stats._fields == ("mean", "std", "near_zero")
    for name in stats._fields:
        assert np.array_equal(getattr(stats, name), view.column(name)[:, 2])


def test_a_layer_is_given_by_position_or_name(view: RunView) -> None:
    activations = ActivationView(view)
    last = len(activations) - 1
    for key in (last, -1, activations.names[-1]):
        assert np.array_equal(activations.layer_stats(key).std, activations.layer_stats(last).std)
        assert np.array_equal(activations.hist(key), activations.hist(last))


def test_hist_is_bins_by_time_in_log_counts(view: RunView) -> None:
    hist = ActivationView(view).hist(0)
    assert hist.shape == (NUM_BINS, len(view.buckets))
    assert np.allclose(np.expm1(hist[:, -1]), view.histogram(0)[-1])  # the last step stands alone


def test_steps_are_the_middles_of_the_buckets(view: RunView) -> None:
    assert np.array_equal(ActivationView(view).steps, (view.first_steps + view.last_steps) / 2)


def test_an_unknown_layer_is_named_with_close_ones(view: RunView) -> None:
    with pytest.raises(UsageError, match=r"layers\.0\.conv"):
        ActivationView(view).plot_layer_stats("layers.0.conf")
    with pytest.raises(UsageError, match="9 layers"):
        ActivationView(view).color_dim(9)


def test_a_run_opened_from_disk_shows_what_the_run_in_memory_shows(view: RunView, tmp_path: Path) -> None:
    healthy_run(directory=tmp_path / "stored")
    run = open_run(tmp_path / "stored")
    for index in range(len(view.layers)):
        for ours, theirs in zip(
            run.activation_stats.layer_stats(index), ActivationView(view).layer_stats(index), strict=True
        ):
            assert np.array_equal(ours, theirs, equal_nan=True)
        assert np.array_equal(run.activation_stats.hist(index), ActivationView(view).hist(index))
    activations = ActivationView(view)
    assert run.activation_stats.color_dim(0).to_json() == activations.color_dim(0).to_json()
    assert run.activation_stats.plot_layer_stats(1).to_json() == activations.plot_layer_stats(1).to_json()


def test_an_open_run_draws_reports_and_diagnoses(tmp_path: Path) -> None:
    healthy_run(steps=40, directory=tmp_path / "stored")
    run = open_run(tmp_path / "stored")
    assert [one.name for one in run.plot_sched().data] == ["lr", "momentum"]
    assert len(run.plot_loss().data[0].x) == 40
    assert run.diagnosis() is run.diagnosis()
    assert run.report() == tmp_path / "stored" / "report.html"
    assert run.report(tmp_path / "other.html").is_file()


def test_a_folder_without_a_run_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError):
        open_run(tmp_path)
