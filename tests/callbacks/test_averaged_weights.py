from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from actograph.callbacks.averaged_weights import AveragedWeights, on_same_device
from actograph.callbacks.early_stopping import EarlyStopping
from actograph.errors import UsageError
from actograph.testing.callbacks import tiny_loop, weights
from actograph.train.events import Callback, Stage
from actograph.train.loop import Loop
from actograph.train.state import Phase
from actograph.train.step import Supervised


def loop_with_batch_norm() -> Loop:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    batches = [(torch.randn(size, 4), torch.randint(0, 3, (size,))) for size in (6, 6, 3)]
    return Loop(model, optimizer, Supervised(model, nn.functional.cross_entropy, optimizer), batches, batches)


class Look(Callback):
    """Keep the floating-point state after each step, and what the model holds while and after it is measured."""

    stage = Stage.MEASURE

    def __init__(self) -> None:
        self.steps: list[dict[str, Tensor]] = []
        self.measured: list[dict[str, Tensor]] = []
        self.after_epochs: list[dict[str, Tensor]] = []

    def after_step(self, loop: Loop) -> None:
        self.steps.append(state(loop))

    def before_batch(self, loop: Loop) -> None:
        if loop.progress.phase is Phase.VALID and loop.progress.batch == 0:
            self.measured.append(state(loop))

    def after_epoch(self, loop: Loop) -> None:
        self.after_epochs.append(state(loop))


def state(loop: Loop) -> dict[str, Tensor]:
    return {
        key: value.double().clone()
        for key, value in loop.model.state_dict().items()
        if value.is_floating_point()
    }


def mean(steps: list[dict[str, Tensor]], decay: float) -> dict[str, Tensor]:
    """The definition: a mean in which each step weighs ``decay`` times the next one."""
    shares = [decay ** (len(steps) - 1 - index) for index in range(len(steps))]
    return {
        key: sum((share * step[key] for share, step in zip(shares, steps, strict=True)), torch.zeros(()))
        / sum(shares)
        for key in steps[0]
    }


def close(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return all(torch.allclose(left[key], right[key], atol=1e-6) for key in left)


@pytest.mark.parametrize("decay", [0.5, 0.999, None])
def test_validation_measures_the_mean_of_all_steps_so_far(decay: float | None) -> None:
    look, loop = Look(), loop_with_batch_norm()
    loop.fit(3, [AveragedWeights(decay), look])
    for epoch in range(3):
        expected = mean(look.steps[: 3 * (epoch + 1)], 1.0 if decay is None else decay)
        assert close(look.measured[epoch], expected)
        assert close(look.after_epochs[epoch], expected)
    assert not close(look.measured[2], look.steps[-1])
    assert close(state(loop), look.measured[2])


def test_training_goes_on_with_the_raw_weights_bit_for_bit() -> None:
    plain, averaged, look = loop_with_batch_norm(), loop_with_batch_norm(), Look()
    plain.fit(3)
    averaged.fit(3, [AveragedWeights(keep=False), look])
    raw = look.steps[-1]
    assert all(torch.equal(value, raw[key]) for key, value in state(plain).items())
    assert all(torch.equal(value, raw[key]) for key, value in state(averaged).items())


def test_the_plain_mean_may_begin_late() -> None:
    look, averaged = Look(), AveragedWeights(None, start=0.5)
    loop = loop_with_batch_norm()
    loop.fit(4, [averaged, look])
    assert averaged.num_averaged == 6
    assert close(look.measured[1], look.steps[5])  # nothing to average yet
    assert close(state(loop), mean(look.steps[6:], 1.0))


@pytest.mark.parametrize("keep", [True, False])
def test_raw_weights_come_back_after_an_error_in_validation(keep: bool) -> None:
    class Fail(Callback):
        def after_forward(self, loop: Loop) -> None:
            if loop.progress.phase is Phase.VALID:
                raise OSError("disk")

    look, loop = Look(), loop_with_batch_norm()
    with pytest.raises(OSError, match="disk"):
        loop.fit(2, [AveragedWeights(0.5, keep=keep), look, Fail()])
    assert all(torch.equal(value, look.steps[-1][key]) for key, value in state(loop).items())


def test_without_validation_the_mean_is_there_at_the_end() -> None:
    look, loop = Look(), loop_with_batch_norm()
    loop.valid_loader = None
    loop.fit(2, [AveragedWeights(0.5), look])
    assert close(state(loop), mean(look.steps, 0.5))
    assert close(look.after_epochs[0], look.steps[2])


def test_validation_alone_measures_the_model_as_it_is() -> None:
    loop, averaged = tiny_loop(), AveragedWeights(0.5, keep=False)
    loop.fit(1, [averaged])
    before = weights(loop.model)
    loop.validate([averaged])
    assert weights(loop.model) == before


def test_the_best_weights_of_early_stopping_are_those_measured() -> None:
    class Best(EarlyStopping):
        pass

    look, loop = Look(), loop_with_batch_norm()
    stopping = EarlyStopping("train_loss", patience=9, restore_best=True)
    loop.fit(3, [AveragedWeights(0.5, keep=False), stopping, look])
    assert stopping.best_epoch is not None
    best = look.measured[stopping.best_epoch]
    assert all(torch.equal(value, best[key]) for key, value in state(loop).items())


def test_it_goes_on_from_its_saved_state_after_an_epoch() -> None:
    saved: dict[str, Any] = {}

    class Save(Callback):
        stage = Stage.REPORT

        def after_epoch(self, loop: Loop) -> None:
            if loop.progress.epoch == 0:
                saved["callback"] = {
                    key: [tensor.clone() for tensor in value] if isinstance(value, list) else value
                    for key, value in first.state_dict().items()
                }
                saved["model"] = {key: value.clone() for key, value in loop.model.state_dict().items()}
                saved["optimizer"] = [
                    loop.optimizer.state[parameter]["momentum_buffer"].clone()
                    for parameter in loop.model.parameters()
                ]

    class Load(Callback):
        stage = Stage.SETUP

        def before_epoch(self, loop: Loop) -> None:
            loop.model.load_state_dict(saved["model"])
            second.load_state_dict(saved["callback"])
            for parameter, buffer in zip(loop.model.parameters(), saved["optimizer"], strict=True):
                loop.optimizer.state[parameter]["momentum_buffer"] = buffer

    first, second = AveragedWeights(0.9), AveragedWeights(0.9)
    through, resumed = loop_with_batch_norm(), loop_with_batch_norm()
    through.fit(2, [first, Save()])
    resumed.fit(1, [Load(), second])
    assert second.num_averaged == first.num_averaged == 6
    assert all(torch.equal(value, state(resumed)[key]) for key, value in state(through).items())


def test_a_mean_loaded_on_another_device_follows_the_model() -> None:
    mean = [torch.zeros(2)]
    assert on_same_device(mean, [torch.ones(2)]) is mean
    assert on_same_device(mean, [torch.ones(2, device="meta")])[0].is_meta


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5, 2.0])
def test_a_decay_that_is_no_share_is_refused(decay: float) -> None:
    with pytest.raises(UsageError, match=f"decay={decay}"):
        AveragedWeights(decay)


def test_a_start_that_is_no_share_is_refused() -> None:
    with pytest.raises(UsageError, match=r"start=1\.0: give the share of the fit"):
        AveragedWeights(start=1.0)
