"""What is recorded of updates by default: sizes, agreement, clipping and settings, and that it changes no training."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from actograph import watch
from actograph.callbacks.activation_stats import ActivationStats
from actograph.layout.row import Floats
from actograph.learner import Learner
from actograph.observe.observer import Observer
from actograph.recording.facts.settings import settings_of
from actograph.recording.recording import Recording
from actograph.runlog.facts import FactKind
from actograph.runlog.schema import RunInfo
from actograph.runlog.store import RunWriter
from actograph.runlog.view import RunView

STEPS = 12
SCALARS = {"grad_norm", "update_ratio", "largest_update_ratio", "weight_rms", "update_rms"}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.25), nn.Linear(16, 4))


def loop(model: nn.Module, optimizer: torch.optim.Optimizer, clip: float | None = None) -> list[float]:
    """Train and return the norms of the gradients before they are clipped."""
    torch.manual_seed(1)
    norms = []
    for _ in range(STEPS):
        model(torch.randn(8, 6)).square().mean().backward()
        norms.append(
            float(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm())
        )
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        optimizer.zero_grad()
    return norms


def adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=1e-2, weight_decay=0.1)


def watched(clip: float | None = None, **options: Any) -> tuple[RunView, list[float]]:
    model = network()
    optimizer = adam(model)
    with watch(model, optimizer, ":memory:", budget=None, **options) as recording:
        norms = loop(model, optimizer, clip)
    return recording.view(), norms


def values(view: RunView, name: str) -> Floats:
    return view.scalar(name, "update").values


def test_each_recorded_step_has_its_numbers() -> None:
    view, norms = watched()
    assert {name for phase, name in view.scalars if phase == "update"} == {*SCALARS, "grad_cosine"}
    assert all(len(values(view, name)) == STEPS for name in SCALARS)
    assert values(view, "grad_norm") == pytest.approx(norms, rel=1e-5)


def test_what_clipping_leaves_is_seen_with_its_limit() -> None:
    view, norms = watched(clip=0.1)
    assert values(view, "grad_norm") == pytest.approx(norms, rel=1e-5)
    wanted = np.minimum(0.1 / np.array(norms), 1.0)
    assert values(view, "clip_ratio") == pytest.approx(wanted, rel=1e-3)
    (clipping,) = view.facts.of(FactKind.CLIPPING)
    assert (clipping.subject, clipping.number("limit"), clipping.num_steps) == ("norm", 0.1, STEPS)


def test_recording_parameters_too_gives_the_same_norms() -> None:
    view, _ = watched(clip=0.1, gradients=True)
    for name in ("grad_norm", "clip_ratio"):
        assert values(view, name) == pytest.approx(view.scalar(name).values, rel=1e-4)


def test_training_is_the_same_to_the_bit() -> None:
    plain = network()
    loop(plain, adam(plain), clip=0.1)
    model = network()
    optimizer = adam(model)
    with watch(model, optimizer, ":memory:", budget=None):
        loop(model, optimizer, clip=0.1)
    for a, b in zip(plain.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_step_ahead_of_a_recorded_one_gives_the_cosines() -> None:
    model = network()
    optimizer = adam(model)
    recording = Recording(RunWriter(None, RunInfo("thinned")), budget=None, every=4)
    with recording:
        recording.attach(model)
        recording.optimizer(optimizer)
        loop(model, optimizer)
    thinned = recording.view()
    full, _ = watched()
    steps = thinned.scalar("grad_cosine", "update").steps.astype(int)
    assert steps.tolist() == [4, 8]
    assert values(thinned, "update_ratio") == pytest.approx(values(full, "update_ratio")[[0, 4, 8]])
    assert values(thinned, "grad_cosine") == pytest.approx(values(full, "grad_cosine")[steps - 1])


def test_an_observed_script_gives_the_same() -> None:
    model = network()
    optimizer = adam(model)
    recording = Recording(RunWriter(None, RunInfo("observed")), budget=None)
    with Observer(recording, gradients=False, complain=pytest.fail):
        loop(model, optimizer)
    recording.close()
    found, (wanted, _) = recording.view(), watched()
    for name in SCALARS:
        assert values(found, name) == pytest.approx(values(wanted, name))


def test_settings_are_noted_once_and_again_when_they_change() -> None:
    model = network()
    optimizer = adam(model)
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        loop(model, optimizer)
        optimizer.param_groups[0]["eps"] = 1e-3
        loop(model, optimizer)
    (settings,) = recording.view().facts.of(FactKind.SETTINGS)
    assert (settings.first_step, settings.since, settings.num_steps) == (0, STEPS, 2)
    assert settings.text("kind") == "Adam"
    assert settings.number("eps") == 1e-3
    assert settings.number("decay") == 0.1


@pytest.mark.parametrize(
    ("kind", "options", "wanted"),
    [
        (torch.optim.SGD, {"momentum": 0.9}, {"momentum": 0.9, "decay": 0.0, "is_decoupled": 0.0}),
        (
            torch.optim.AdamW,
            {},
            {"momentum": 0.9, "beta2": 0.999, "eps": 1e-8, "decay": 1e-2, "is_decoupled": 1.0},
        ),
        (torch.optim.Adam, {"weight_decay": 0.1}, {"decay": 0.1, "is_decoupled": 0.0}),
        (torch.optim.RMSprop, {"eps": 1e-4}, {"eps": 1e-4, "is_decoupled": 0.0}),
    ],
)
def test_settings_have_the_names_of_the_field(
    kind: Any, options: dict[str, Any], wanted: dict[str, float]
) -> None:
    found = settings_of(kind(network().parameters(), lr=0.1, **options))
    assert found["kind"] == kind.__name__
    assert {name: found[name] for name in wanted} == wanted


def test_dropout_shares_are_noted() -> None:
    view, _ = watched()
    assert [(fact.subject, fact.number("share")) for fact in view.facts.of(FactKind.DROPOUT)] == [("2", 0.25)]


def test_sparse_gradients_closures_and_frozen_models_do_no_harm() -> None:
    model = nn.Sequential(nn.Embedding(5, 3, sparse=True), nn.Flatten(), nn.Linear(6, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        for _ in range(3):
            model(torch.randint(5, (4, 2))).mean().backward()
            optimizer.step()
            optimizer.zero_grad()
    assert len(values(recording.view(), "update_ratio")) == 3

    model = network()
    search = torch.optim.LBFGS(model.parameters(), max_iter=2)
    x = torch.randn(8, 6)

    def closure() -> torch.Tensor:
        search.zero_grad()
        loss: torch.Tensor = model(x).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    with watch(model, search, ":memory:", budget=None) as recording:
        search.step(closure)  # type: ignore[no-untyped-call]
    assert not len(values(recording.view(), "update_ratio"))


def test_clipping_before_the_optimizer_is_known_and_by_a_name_kept_does_no_harm() -> None:
    model = network()
    optimizer = adam(model)
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        for _ in range(3):
            model(torch.randn(8, 6)).square().mean().backward()
            clip_grad_norm_(model.parameters(), 0.1)  # imported before it was patched: not seen
            optimizer.step()
            optimizer.zero_grad()
    view = recording.view()
    assert values(view, "grad_norm") == pytest.approx([0.1] * 3, rel=1e-3)
    assert not len(values(view, "clip_ratio"))


def test_a_copied_model_is_not_taken_for_the_recorded_one() -> None:
    model = network()
    optimizer = adam(model)
    with watch(model, optimizer, ":memory:", budget=None) as recording:
        loop(model, optimizer)
        other = copy.deepcopy(model)
        loop(other, adam(other))
    assert len(values(recording.view(), "update_ratio")) == STEPS


@pytest.mark.parametrize(("kind", "limit"), [("norm", {"clip_norm": 0.05}), ("value", {"clip_value": 0.001})])
def test_the_clip_of_a_learner_is_seen(kind: str, limit: dict[str, Any]) -> None:
    torch.manual_seed(0)
    data = [(torch.randn(8, 6), torch.randint(4, (8,))) for _ in range(STEPS)]
    stats = ActivationStats(out=":memory:", budget=None)
    learn = Learner(network(), (data, data), nn.CrossEntropyLoss(), callbacks=[stats], defaults=(), **limit)
    learn.fit(1, 0.01)
    view = stats.view
    (clipping,) = view.facts.of(FactKind.CLIPPING)
    assert (clipping.subject, clipping.number("limit")) == (kind, *limit.values())
    assert (values(view, "clip_ratio") < 1.0).all()
