"""Others' rules as the fault benchmark has them: each on a run on which it speaks, and on one just within its threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from faults import rival_autotrainer, rival_packages, rival_smd, rival_smd_said
from faults.said import Said, earliest
from numpy.typing import NDArray

from actograph.layout.layer import LayerInfo
from actograph.layout.parameter import ParameterField, ParameterInfo, empty_parameter_rows
from actograph.runlog.facts import FactKind
from actograph.runlog.view import RunView
from actograph.testing.synthetic import RELU, SIGMOID, TANH, SyntheticRun, layer

STEPS = 20
EVERY = 2  # steps from one evaluation to the next
FALLING = [2.0 * 0.9**step for step in range(STEPS)]
RANDOM = np.random.default_rng(0)

Values = Mapping[str, NDArray[Any]]

# The ids that diagnosis is to have
CAUSES = """
learning-rate-too-high learning-rate-too-low learning-rate-decayed-early missing-warmup momentum-too-high
constant-initialization initialization-too-large initialization-too-small head-initialization dead-units
saturated-activations vanishing-gradients exploding-gradients missing-nonlinearity softmax-in-hidden-layer
eval-mode-in-training train-mode-in-evaluation batchnorm-batch-too-small batchnorm-statistics-frozen
missing-normalization inputs-not-normalized inputs-collapsed labels-misaligned label-noise label-never-seen
data-not-shuffled non-finite-input train-valid-leak softmax-before-cross-entropy wrong-loss summed-loss
loss-sign-flipped targets-not-scaled missing-zero-grad parameters-not-in-optimizer detached-graph
stale-optimizer optimizer-epsilon fp16-overflow fp16-underflow over-regularized overfitting batch-too-small
clipping-too-tight class-collapse non-finite-loss loss-diverging loss-not-decreasing
"""


def parameter_row(
    grad_norm: float, *, zeros: float = 0.0, weight: float = 1.0, update: float = 1e-3
) -> NDArray[Any]:
    row = empty_parameter_rows()
    row[[ParameterField.STEPS, ParameterField.FINITE, ParameterField.MOVED]] = 1
    row[[ParameterField.GRAD_NORM, ParameterField.GRAD_ZEROS]] = grad_norm, zeros
    row[[ParameterField.WEIGHT_NORM, ParameterField.UPDATE_NORM]] = weight, update
    return row


def run_of(
    *,
    layers: Sequence[LayerInfo] = (),
    values: Callable[[int], Values] | None = None,
    losses: Sequence[float] = FALLING,
    rows: Mapping[str, Callable[[int], NDArray[Any]]] | None = None,
    shape: tuple[int, ...] = (10, 10),
    valid: Sequence[float] = (),
    metrics: Sequence[float] = (),
    prepare: Callable[[SyntheticRun], None] = lambda run: None,
) -> RunView:
    """Return a run of as many steps as there are losses; ``rows`` has the parameters, all of one shape."""
    run = SyntheticRun(layers)
    for name in rows or {}:
        run.writer.add_parameter(ParameterInfo(name, shape, "float32"))
    for step, loss in enumerate(losses):
        run.step(values(step) if values is not None else {}, loss=loss)
        if rows:
            run.writer.add_parameter_rows(step, np.stack([row(step) for row in rows.values()]))
    for name, series in (("loss", valid), ("metric", metrics)):
        for number, value in enumerate(series, 1):
            run.writer.add_scalar(name, number * EVERY - 1, value, "valid")
    prepare(run)
    return run.view()


def one_layer(info: LayerInfo, *values: NDArray[Any]) -> RunView:
    """Return a run whose only layer has these values, step by step and the last ones up to the end."""
    return run_of(layers=[info], values=lambda step: {info.name: values[min(step, len(values) - 1)]})


def weights(row: Callable[[int], NDArray[Any]], **rest: Any) -> RunView:
    return run_of(rows={"fc1.weight": row}, **rest)


def said(rule: Callable[[RunView], Any], view: RunView) -> list[tuple[str, str | None, int | None]]:
    return [(one.rule, one.layer, one.first_step) for one in earliest(rule(view))]


# SageMaker Debugger


def relus(num_silent: int) -> NDArray[Any]:
    values = np.ones((64, 10))
    values[:, :num_silent] = 0.0
    return values


def test_more_than_half_of_the_relus_silent_is_dead_relu() -> None:
    info = layer("act1", "ReLU", 10, RELU)
    assert said(rival_smd.dead_relu, one_layer(info, relus(0), relus(6))) == [("DeadRelu", "act1", 1)]
    assert said(rival_smd.dead_relu, one_layer(info, relus(5))) == []


def test_nan_in_an_output_and_in_a_gradient_are_exploding_tensors() -> None:
    info = layer("fc1", "Linear", 10)
    bad = one_layer(info, np.ones((64, 10)), np.full((64, 10), np.nan))
    assert said(rival_smd.exploding_tensor, bad) == [("ExplodingTensor", "fc1", 1)]
    assert said(rival_smd.exploding_tensor, one_layer(info, np.full((64, 10), 1e30))) == []

    def row(step: int) -> NDArray[Any]:
        found = parameter_row(1.0)
        found[ParameterField.FIRST_NON_FINITE] = 3
        return found

    assert said(rival_smd.exploding_tensor, weights(row)) == [("ExplodingTensor", "fc1", 3)]


@pytest.mark.parametrize(
    ("kind", "flat", "beyond", "within"),
    [("Tanh", TANH, 12.0, 7.0), ("Sigmoid", SIGMOID, 19.0, 15.0), ("Sigmoid", SIGMOID, -27.0, -17.0)],
)
def test_inputs_beyond_the_limits_are_saturated_activations(
    kind: str, flat: Any, beyond: float, within: float
) -> None:
    layers = [layer("fc1", "Linear", 10), layer("act1", kind, 10, flat)]

    def view(value: float, num: int) -> RunView:
        inputs = np.zeros((64, 10))
        inputs[:, :num] = value
        return run_of(layers=layers, values=lambda _: {"fc1": inputs, "act1": np.tanh(inputs)})

    assert said(rival_smd.saturated_activation, view(beyond, 6)) == [("SaturatedActivation", "act1", 0)]
    assert said(rival_smd.saturated_activation, view(beyond, 5)) == []
    assert said(rival_smd.saturated_activation, view(within, 10)) == []


def test_variances_of_relu_inputs_ten_times_apart_are_a_poor_initialization_where_the_loss_stalls() -> None:
    layers = [layer("fc1", "Linear", 10), layer("act1", "ReLU", 10, RELU)]
    layers += [layer("fc2", "Linear", 10), layer("act2", "ReLU", 10, RELU)]
    inputs = RANDOM.normal(size=(64, 10))

    def view(variance_ratio: float, losses: Sequence[float]) -> RunView:
        scaled = inputs * np.sqrt(variance_ratio)
        outputs = {"fc1": inputs, "act1": np.maximum(inputs, 0), "fc2": scaled, "act2": np.maximum(scaled, 0)}
        return run_of(layers=layers, values=lambda _: outputs, losses=losses)

    flat = [2.0] * STEPS
    rule = rival_smd.poor_weight_initialization
    assert said(rule, view(10.5, flat)) == [("PoorWeightInitialization", None, 0)]
    assert said(rule, view(9.5, flat)) == []
    assert said(rule, view(10.5, FALLING)) == []


@pytest.mark.parametrize(("falls_until", "speaks"), [(4, True), (5, False)])
def test_the_loss_has_to_stall_for_five_of_the_first_ten_steps(falls_until: int, speaks: bool) -> None:
    losses = [2.0 - 0.1 * min(step, falls_until) for step in range(STEPS)]
    view = weights(lambda _: parameter_row(1e-3), losses=losses)
    assert bool(said(rival_smd.poor_weight_initialization, view)) == speaks


def test_a_narrow_range_of_gradients_is_a_poor_initialization_where_the_loss_stalls() -> None:
    flat = [2.0] * STEPS  # a hundred entries: a range of 3.29 times a tenth of the norm
    narrow = weights(lambda _: parameter_row(2.9e-3), losses=flat)
    wide = weights(lambda _: parameter_row(3.2e-3), losses=flat)
    assert said(rival_smd.poor_weight_initialization, narrow) == [("PoorWeightInitialization", None, 0)]
    assert said(rival_smd.poor_weight_initialization, wide) == []


def test_all_zero_needs_every_value_to_be_zero() -> None:
    info = layer("act1", "ReLU", 10, RELU)
    assert said(rival_smd.all_zero, one_layer(info, relus(3), relus(10))) == [("AllZero", "act1", 1)]
    assert said(rival_smd.all_zero, one_layer(info, relus(9))) == []
    assert said(rival_smd.all_zero, weights(lambda _: parameter_row(0.0, zeros=1.0))) == [
        ("AllZero", "fc1", 0)
    ]
    assert said(rival_smd.all_zero, weights(lambda _: parameter_row(1.0, zeros=0.99))) == []
    assert said(rival_smd.all_zero, run_of(rows={"fc1.bias": lambda _: parameter_row(1.0, weight=0.0)})) == []


def test_a_mean_gradient_below_1e_7_is_vanishing() -> None:
    # a hundred normally distributed entries: mean |g| is 0.798 times a tenth of the norm
    assert said(rival_smd.vanishing_gradient, weights(lambda _: parameter_row(1.2e-6))) == [
        ("VanishingGradient", "fc1", 0)
    ]
    assert said(rival_smd.vanishing_gradient, weights(lambda _: parameter_row(1.3e-6))) == []


def test_the_estimate_of_the_mean_gradient_is_that_of_sparse_normal_entries() -> None:
    entries = RANDOM.normal(size=(100, 100)) * (RANDOM.random((100, 100)) < 0.2)
    scale = 1e-7 / np.abs(entries).mean()

    def view(factor: float) -> RunView:
        found = entries * scale * factor
        row = parameter_row(float(np.linalg.norm(found)), zeros=float((found == 0).mean()))
        return weights(lambda _: row, shape=(100, 100))

    assert said(rival_smd.vanishing_gradient, view(0.95)) != []
    assert said(rival_smd.vanishing_gradient, view(1.05)) == []


def test_updates_of_ten_times_the_weight_and_of_less_than_1e_8_of_it_are_reported() -> None:
    rule = rival_smd.weight_update_ratio
    assert said(rule, weights(lambda _: parameter_row(1.0, update=10.1))) == [
        ("WeightUpdateRatio (large)", "fc1", 0)
    ]
    assert said(rule, weights(lambda _: parameter_row(1.0, update=9.9))) == []
    assert said(rule, weights(lambda _: parameter_row(1.0, update=0.9e-8))) == [
        ("WeightUpdateRatio (small)", "fc1", 0)
    ]
    assert said(rule, weights(lambda _: parameter_row(1.0, update=1.1e-8))) == []
    # of a weight of a hundred zeros the size is epsilon times ten
    assert said(rule, weights(lambda _: parameter_row(1.0, weight=0.0, update=1.1e-7))) != []
    assert said(rule, weights(lambda _: parameter_row(1.0, weight=0.0, update=0.9e-7))) == []


def test_a_weight_that_stands_still_for_three_steps_is_unchanged() -> None:
    rule = rival_smd.unchanged_tensor
    assert said(rule, weights(lambda step: parameter_row(1.0, update=0.0 if step >= 5 else 1.0))) == [
        ("UnchangedTensor", "fc1", 6)
    ]
    assert (
        said(rule, weights(lambda step: parameter_row(1.0, update=0.0 if step % 2 else 1.0))) == []
    )  # of two steps only
    assert said(rule, weights(lambda _: parameter_row(1.0, update=0.9e-7))) != []  # atol times ten is 1e-7
    assert said(rule, weights(lambda _: parameter_row(1.0, update=1.1e-7))) == []


def test_a_loss_that_stands_still_for_three_steps_is_unchanged() -> None:
    def view(change: float) -> RunView:
        return run_of(losses=[1.0, 1.0 + change, 1.0 + 2 * change])

    assert said(rival_smd.unchanged_tensor, view(0.9e-5)) == [("UnchangedTensor", None, 2)]
    assert said(rival_smd.unchanged_tensor, view(1.2e-5)) == []


def test_a_layer_that_no_optimizer_holds_never_changes() -> None:
    layers = [
        LayerInfo(name, "Linear", (64, 10), "float32", 1, 10, num_parameters=110) for name in ("fc1", "head")
    ]
    view = run_of(
        layers=layers,
        values=lambda _: dict.fromkeys(("fc1", "head"), np.ones((64, 10))),
        rows={"head.weight": lambda _: parameter_row(1.0)},
    )
    assert said(rival_smd.unchanged_tensor, view) == [("UnchangedTensor", "fc1", 2)]
    assert said(rival_smd.weight_update_ratio, view) == [("WeightUpdateRatio (small)", "fc1", 1)]
    not_recorded = run_of(layers=layers, values=lambda _: dict.fromkeys(("fc1", "head"), np.ones((64, 10))))
    assert said(rival_smd.unchanged_tensor, not_recorded) == []


@pytest.mark.parametrize(
    ("counts", "batches", "speaks"),
    [
        ([455.0, 45.0], 10, True),
        ([455.0, 44.0], 10, False),  # 499 labels
        ([890.0, 65.0], 10, True),
        ([545.0, 55.0], 10, False),  # less than ten times
        ([900.0, 65.0], 10, False),  # more than 96 labels for a batch of 64 samples: sequences
    ],
)
def test_classes_ten_times_apart_are_imbalanced(counts: list[float], batches: float, speaks: bool) -> None:
    def prepare(run: SyntheticRun) -> None:
        run.writer.facts.note(FactKind.LABELS, "cross-entropy", 12, counts=counts, batches=batches)

    info = layer("fc1", "Linear", 10)
    view = run_of(layers=[info], values=lambda _: {"fc1": np.ones((64, 10))}, prepare=prepare)
    expected = [("ClassImbalance", None, int(12 * 500 / sum(counts)))] if speaks else []
    assert said(rival_smd.class_imbalance, view) == expected


@pytest.mark.parametrize(
    ("kind", "mean", "speaks"), [("Conv2d", 0.21, True), ("Conv2d", 0.19, False), ("Linear", 0.21, False)]
)
def test_images_whose_mean_is_not_zero_are_reported_after_500(kind: str, mean: float, speaks: bool) -> None:
    info = LayerInfo("first", kind, (64, 10), "float32", 1, 10, num_parameters=100)

    def prepare(run: SyntheticRun) -> None:
        for step in range(STEPS):
            run.writer.add_scalar("mean", step, mean, "input")
            run.writer.add_scalar("batch_size", step, 50, "input")

    view = run_of(layers=[info], values=lambda _: {"first": np.ones((64, 10))}, prepare=prepare)
    assert said(rival_smd.check_input_images, view) == ([("CheckInputImages", None, 9)] if speaks else [])


def test_a_validation_loss_ten_percent_above_the_training_loss_is_overfit() -> None:
    flat = [1.0] * STEPS
    assert said(rival_smd.overfit, run_of(losses=flat, valid=[1.0, 1.11])) == [("Overfit", None, 3)]
    assert said(rival_smd.overfit, run_of(losses=flat, valid=[1.0, 1.09])) == []


def test_losses_that_do_not_improve_by_a_hundredth_are_overtraining() -> None:
    def view(gain: float) -> RunView:
        losses = [1.0 - gain * step for step in range(24)]
        return run_of(losses=losses, valid=[1.0 - gain * number for number in range(12)])

    assert said(rival_smd.overtraining, view(0.0009)) == [
        ("Overtraining", None, 21)
    ]  # the tenth after the best
    assert said(rival_smd.overtraining, view(0.012)) == []


def test_overtraining_waits_for_both_losses() -> None:
    def step_of(losses: Sequence[float], valid: Sequence[float]) -> int | None:
        return said(rival_smd.overtraining, run_of(losses=losses, valid=valid))[0][2]

    def falling_until(last: int) -> list[float]:
        return [1.0 - 0.02 * min(step, last) for step in range(24)]

    assert step_of(falling_until(16), [1.0] * 12) == 21  # five steps later
    assert step_of(falling_until(17), [1.0] * 12) == 23  # the evaluation after the fifth step
    assert step_of([1.0] * 24, [1.0, *[0.991] * 11]) == 21  # by less than a hundredth: no improvement
    assert step_of([1.0] * 24, [1.0, *[0.989] * 11]) == 23


@pytest.mark.parametrize(
    ("change", "speaks"), [(1.051, True), (1.049, False), (0.9991, True), (0.9989, False)]
)
def test_a_loss_that_rises_by_five_percent_or_falls_by_less_than_a_thousandth_does_not_decrease(
    change: float, speaks: bool
) -> None:
    view = run_of(losses=[1.0] * 10 + [change])
    assert said(rival_smd.loss_not_decreasing, view) == ([("LossNotDecreasing", None, 10)] if speaks else [])


def test_validation_losses_are_what_has_to_decrease_where_there_are_any() -> None:
    noisy = [1.0 + step % 2 for step in range(STEPS)]
    assert said(rival_smd.loss_not_decreasing, run_of(losses=noisy, valid=[0.9**n for n in range(10)])) == []
    assert said(rival_smd.loss_not_decreasing, run_of(losses=noisy, valid=[1.0] * 10)) == [
        ("LossNotDecreasing", None, 11)
    ]


def test_smd_is_silent_on_an_empty_run_and_on_a_run_that_goes_well() -> None:
    assert rival_smd.smd(run_of(losses=[])) == []
    healthy = run_of(
        layers=[layer("act1", "ReLU", 10, RELU)],
        values=lambda _: {"act1": relus(2)},
        rows={"fc1.weight": lambda _: parameter_row(0.1)},
        valid=[0.9 * FALLING[2 * number] for number in range(10)],
    )
    assert rival_smd.smd(healthy) == []


# AutoTrainer

POOR = [0.3, 0.45] * 5  # accuracies below 0.6 with steps above 0.01
VALID = [1.0 - 0.01 * number for number in range(10)]
KERNELS = ("fc1.weight", "head.weight")


def trained(first: float, last: float, *, metrics: Sequence[float] = POOR, zeros: float = 0.0) -> RunView:
    """Return a run whose two kernels have gradients of these norms."""
    rows = [parameter_row(norm, zeros=zeros) for norm in (first, last)]
    return run_of(
        rows={KERNELS[0]: lambda _: rows[0], KERNELS[1]: lambda _: rows[1]}, valid=VALID, metrics=metrics
    )


def named(view: RunView) -> list[tuple[str, int | None]]:
    return [(one.rule, one.first_step) for one in rival_autotrainer.autotrainer(view)]


RISING = [0.3, 0.32, 0.34, 0.36, 0.38, 0.4, 0.42, 0.44, 0.46, 0.48]  # poor, neither slow nor swinging
THIRD = 3 * EVERY - 1  # accuracies count from three tenths of the epochs


def test_gv_needs_a_ratio_below_a_thousandth_and_a_norm_below_1e_4() -> None:
    assert named(trained(0.9e-4, 0.1, metrics=RISING)) == [("GV", THIRD)]
    assert named(trained(0.9e-4, 0.08, metrics=RISING)) == []  # the ratio is too high
    assert named(trained(1.1e-4, 1.0, metrics=RISING)) == []  # the norm is too high


def test_ge_needs_a_ratio_above_seventy() -> None:
    assert named(trained(71.0, 1.0, metrics=RISING)) == [("GE", THIRD)]
    assert named(trained(69.0, 1.0, metrics=RISING)) == []


def test_dr_needs_seven_tenths_of_the_gradients_to_be_zero() -> None:
    assert named(trained(1.0, 1.0, metrics=RISING, zeros=0.71)) == [("DR", THIRD)]
    assert named(trained(1.0, 1.0, metrics=RISING, zeros=0.69)) == []


def test_gradients_are_no_problem_where_the_accuracy_is_good() -> None:
    good = [0.61, 0.63, 0.65, 0.67, 0.69, 0.71, 0.73, 0.75, 0.77, 0.79]
    for view in (trained(0.9e-4, 0.1, metrics=good), trained(71.0, 1.0, metrics=good)):
        assert named(view) == []
    assert named(trained(1.0, 1.0, metrics=good, zeros=0.71)) == []


def test_an_accuracy_below_six_tenths_is_poor() -> None:
    assert named(trained(71.0, 1.0, metrics=[0.5, 0.55, *[0.59] * 8])) == [("GE", THIRD)]
    assert named(trained(71.0, 1.0, metrics=[0.5, 0.55, *[0.61] * 8])) == []


def test_sc_needs_a_poor_accuracy_that_never_gains_a_hundredth() -> None:
    assert named(trained(1.0, 1.0, metrics=[0.3 + 0.009 * n for n in range(10)])) == [("SC", THIRD)]
    assert named(trained(1.0, 1.0, metrics=[0.3 + 0.011 * n for n in range(10)])) == []
    assert named(trained(1.0, 1.0, metrics=[0.9] * 10)) == []  # good, and at its end


def test_ol_needs_swings_of_three_hundredths_in_a_fifth_of_the_epochs() -> None:
    swinging = [0.8, 0.84, 0.8, 0.84, 0.8, 0.84, 0.8, 0.84, 0.8, 0.84]
    assert [rule for rule, _ in named(trained(1.0, 1.0, metrics=swinging))] == ["OL"]
    late = [
        0.7,
        0.71,
        0.72,
        0.73,
        0.74,
        0.8,
        0.74,
        0.8,
        0.74,
        0.8,
    ]  # the second swing makes it a fifth, at the end
    assert named(trained(1.0, 1.0, metrics=late)) == [("OL", 10 * EVERY - 1)]
    small = [0.8 + 0.02 * (n % 2) for n in range(10)]
    assert named(trained(1.0, 1.0, metrics=small)) == []


def test_losses_of_a_thousand_or_below_zero_are_problems_at_once() -> None:
    assert named(run_of(valid=[1.0, 1000.0], metrics=[0.9, 0.9])) == [("GE", 3)]
    assert named(run_of(valid=[1.0, 999.0], metrics=[0.9, 0.92])) == []
    assert named(run_of(valid=[1.0, -0.1], metrics=[0.9, 0.92])) == [("IL", 3)]
    assert named(run_of(valid=[1.0, float("nan")], metrics=[0.9, 0.92])) == [("GE", 3)]


def test_ge_is_also_a_gradient_that_is_not_finite() -> None:
    def row(step: int) -> NDArray[Any]:
        found = parameter_row(1.0)
        found[ParameterField.FIRST_NON_FINITE] = 2
        return found

    assert named(weights(row, valid=[1.0, 0.9, 0.8], metrics=[0.9, 0.92, 0.94])) == [("GE", 3)]


def test_ad_needs_a_mean_output_of_ten_in_a_layer_that_is_not_the_last() -> None:
    layers = [layer("fc1", "Linear", 10), layer("head", "Linear", 10)]
    signs = np.where(np.arange(10) % 2, 1.0, -1.0) * np.ones((64, 1))

    def view(first: float, last: float) -> RunView:
        outputs = {"fc1": first * signs, "head": last * signs}
        return run_of(
            layers=layers, values=lambda _: outputs, valid=VALID, metrics=[0.9 + 0.005 * n for n in range(10)]
        )

    assert named(view(10.1, 1.0)) == [("AD", 1)]
    assert named(view(9.9, 100.0)) == []


@pytest.mark.parametrize(("kind", "problem"), [("Softmax", [("IO", THIRD)]), ("Linear", [])])
def test_io_is_a_nonlinear_output_under_a_loss_that_takes_logits(kind: str, problem: list[Any]) -> None:
    def prepare(run: SyntheticRun) -> None:
        run.writer.facts.note(FactKind.LABELS, "cross-entropy", 0, counts=[1.0, 1.0], batches=1.0)

    info = layer("out", kind, 10)
    view = run_of(
        layers=[info],
        values=lambda _: {"out": np.ones((64, 10))},
        valid=VALID,
        metrics=RISING,
        prepare=prepare,
    )
    assert named(view) == problem


def test_autotrainer_is_silent_where_nothing_was_evaluated() -> None:
    assert named(run_of(losses=[])) == []
    assert named(run_of(losses=[1e6] * 5)) == []


# Packages, and what may be meant


def finding(name: str, severity: str, layers: Sequence[str] = (), first_step: int = 0) -> dict[str, Any]:
    return {"name": name, "severity": severity, "layers": list(layers), "first_step": first_step}


def test_torchmortem_keeps_its_order_and_says_each_kind_once() -> None:
    findings = [
        finding("Dead units in act2", "critical", ["act2"], 9),
        finding("Training divergence detected", "critical", [], 3),
        finding("Dead units in act1", "warning", ["act1"], 9),
        finding("Catapult phase detected", "info"),
    ]
    found = rival_packages.translated("torchmortem", findings)
    assert [(one.rule, one.layer, one.others) for one in found] == [
        ("Dead units", "act2", ("act1",)),
        ("Training divergence detected", None, ()),
    ]
    assert found[0].means_any(("dead-units",))


def test_torch_audits_advice_on_a_set_up_is_no_alarm() -> None:
    findings = [
        finding("TA402", "warn", ["optimizer"]),
        finding("TA103", "info", ["fc1"]),
        finding("TA100", "error", ["global"], 7),
        finding("TA105", "warn", ["act1"], 4),
    ]
    found = rival_packages.translated("torch-audit", findings)
    assert [(one.rule, one.layer, one.first_step) for one in found] == [
        ("TA105", "act1", 4),
        ("TA100", None, 7),
    ]


def test_an_answer_is_right_where_any_cause_that_may_be_meant_is_accepted() -> None:
    one = Said("Overfit", causes=("overfitting", "label-noise"))
    assert one.means_any(("label-noise",))
    assert one.means_any(("Overfit",))
    assert not one.means_any(("dead-units",))


def test_causes_that_may_be_meant_are_ids_that_diagnosis_is_to_have() -> None:
    tables = [rival_smd_said.CAUSES, rival_autotrainer.CAUSES, *rival_packages.CAUSES.values()]
    named_causes = {cause for table in tables for causes in table.values() for cause in causes}
    assert named_causes <= set(CAUSES.split())
