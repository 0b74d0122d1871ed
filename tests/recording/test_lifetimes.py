"""What a script lets go of is freed while it is recorded, and what comes in its place is not taken for it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from actograph.observe.observer import Observer
from actograph.observe.watch import watch
from actograph.recording.lifetimes import Lifetimes
from actograph.recording.new_run import new_run
from actograph.recording.recording import Recording
from actograph.rules.diagnose import diagnose
from actograph.rules.rule import Severity
from actograph.runlog.facts import FactKind

Weak = weakref.ref[object]


def network(size: int = 4) -> nn.Sequential:
    """Return one of each kind of module that facts are kept of."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, size)
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, num_steps: int = 5) -> None:
    for _ in range(num_steps):
        loss = nn.functional.cross_entropy(model(torch.randn(8, 1, 6, 6)), torch.randint(0, 4, (8,)))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


class _Circle:
    """A hook that refers to its own module."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, *_: object) -> None:
        """Change nothing."""


@contextmanager
def recorded(*, grad: bool = False, budget: float | None = None) -> Iterator[Recording]:
    """Observe what is trained in the block, as under ``actograph run``."""
    failures: list[str] = []
    recording = Recording(new_run("lifetimes", ":memory:"), budget=budget, grad=grad)
    with Observer(recording, gradients=grad, complain=failures.append):
        yield recording
    recording.close()
    assert failures == []


def all_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[Weak]:
    tensors = [one for p in model.parameters() for one in (p, p.grad) if one is not None]
    return [weakref.ref(one) for one in (*model.modules(), optimizer, *tensors)]


def num_tensors() -> int:
    gc.collect()
    return sum(issubclass(type(one), Tensor) for one in gc.get_objects())


@pytest.mark.parametrize("grad", [False, True])
def test_a_model_and_its_optimizer_are_freed_with_their_gradients(grad: bool) -> None:
    with recorded(grad=grad) as recording:
        for _ in range(3):
            model = network()
            optimizer = torch.optim.Adam(model.parameters())
            train(model, optimizer)
            model.eval()
            with torch.no_grad():
                nn.functional.cross_entropy(model(torch.randn(8, 1, 6, 6)), torch.randint(0, 4, (8,)))
            left = all_of(model, optimizer)
            del model, optimizer
            gc.collect()
            assert [one() for one in left if one() is not None] == []
    view = recording.view()
    assert view.num_steps == 15
    assert [layer.name for layer in view.layers][::6] == ["0", "sequential1.0", "sequential2.0"]
    assert [len(view.scalar(name)) for name in ("loss", "loss@1", "loss@2")] == [5, 5, 5]
    assert (view.moments.num[10:, :12] == 0).all()
    assert (view.moments.num[10:, 12:] > 0).all()


def test_copies_of_weights_and_gradients_go_with_the_optimizer_alone() -> None:
    with recorded(grad=True) as recording:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        train(model, optimizer)
        known = weakref.ref(optimizer)
        del optimizer
        assert known() is None
        recording.view()  # stores numbers that wait
        before = num_tensors()
        for _ in range(3):
            train(model, torch.optim.SGD(model.parameters(), lr=0.1))
        recording.view()
        assert num_tensors() < before + len(list(model.parameters()))  # copies of one optimizer's weights


def test_a_model_in_the_place_of_another_has_names_rows_and_facts_of_its_own() -> None:
    names = []
    with recorded(grad=True) as recording:
        places: list[int] = []
        for index in range(6):
            model = network(size=4 + index)
            places += [id(one) for one in (*model.modules(), *model.parameters())]
            train(model, torch.optim.SGD(model.parameters(), lr=0.01))
            names += [name for name, _ in model.named_parameters()]
            del model
    assert len(set(places)) < len(places)  # else nothing is shown
    view = recording.view()
    assert len(view.layers) == 6 * 6
    assert [layer.shape[1] for layer in view.layers][5::6] == [4, 5, 6, 7, 8, 9]
    parameters = [one.name for one in recording._writer.parameters]
    assert len(parameters) == len(set(parameters)) == len(names)
    assert [layer.num_parameters for layer in view.layers][5::6] == [65 * size for size in range(4, 10)]
    assert not [one for one in diagnose(view).findings if one.severity > Severity.NOTE]


def test_a_second_optimizer_of_the_same_parameters_goes_on_in_their_rows() -> None:
    with recorded(grad=True) as recording:
        model = network()
        for _ in range(2):
            train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert len(recording._writer.parameters) == len(list(model.parameters()))
    assert [len(recording.view().scalar(name)) for name in ("lr", "lr@1")] == [5, 5]


def test_parameters_whose_optimizer_is_gone_are_not_taken_for_forgotten_ones() -> None:
    with recorded() as recording:
        model = network()
        train(model, torch.optim.SGD(model.parameters(), lr=0.1))
        train(model, torch.optim.SGD(model[-1].parameters(), lr=0.1))
    assert "parameters-not-in-optimizer" not in {one.rule for one in diagnose(recording.view()).findings}


def test_a_recording_goes_on_where_the_collector_runs_at_any_time() -> None:
    threshold = gc.get_threshold()
    gc.set_threshold(1)
    try:
        with recorded(grad=True) as recording:
            for _ in range(4):
                model = network()
                model.register_forward_hook(
                    _Circle(model)
                )  # freed by the collector only, in the middle of something
                train(model, torch.optim.SGD(model.parameters(), lr=0.1), 3)
                del model
    finally:
        gc.set_threshold(*threshold)
    assert recording.num_steps == 12


def test_an_optimizer_that_failed_and_is_gone_does_not_stand_in_the_way_of_the_next() -> None:
    def fail() -> float:
        raise ZeroDivisionError

    with recorded() as recording:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        with pytest.raises(ZeroDivisionError):
            optimizer.step(fail)
        del optimizer
        gc.collect()
        train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert recording.num_steps == 5


def test_lifetimes_keep_nothing_alive_and_tell_of_each_end_once() -> None:
    class Owner:
        def __init__(self) -> None:
            self.gone: list[int] = []
            self.known = Lifetimes[nn.Module](self.gone_is)

        def gone_is(self, key: int) -> None:
            self.gone.append(key)

    owner, thing = Owner(), nn.Linear(1, 1)
    key = owner.known.add(thing)
    assert owner.known.add(thing) == key == id(thing)
    assert thing in owner.known
    del thing
    assert owner.gone == [key]
    other = nn.Linear(1, 1)
    owner.known.add(other)
    left = weakref.ref(owner)
    del owner
    gc.collect()
    assert left() is None
    del other  # nobody is told


def test_a_watched_model_is_freed_while_its_recording_is_open() -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watch(model, optimizer, ":memory:", budget=None, grad=True, gradients=True) as recording:
        train(model, optimizer)
        left = all_of(model, optimizer)
        del model, optimizer
        gc.collect()
        assert [one() for one in left if one() is not None] == []
    assert recording.view().num_steps == 5


def test_parts_that_outlive_the_module_around_them_are_recorded_on() -> None:
    with recorded(grad=True) as recording:
        first, last = nn.Sequential(nn.Flatten(), nn.Linear(36, 8)), nn.Linear(8, 4)
        optimizer = torch.optim.SGD([*first.parameters(), *last.parameters()], lr=0.1)
        for _ in range(4):
            train(nn.Sequential(first, nn.Tanh(), last), optimizer, 1)
            gc.collect()
        evaluated = nn.Sequential(first, last).eval()
        with torch.no_grad():
            evaluated(torch.randn(8, 1, 6, 6))
    view = recording.view()
    names = [layer.name for layer in view.layers]
    assert {"0.1", "2"} < set(names)
    assert (view.moments.num[:, names.index("2")] == 32).all()
    assert [one.name for one in recording._writer.parameters] == [
        "0.1.weight",
        "0.1.bias",
        "2.weight",
        "2.bias",
    ]
    assert not view.facts.of(FactKind.UNKNOWN_PARAMETER)
    assert [len(one._forward_hooks) for one in (*first, last)] == [0, 0, 0]
    assert recording._hooks == {}
