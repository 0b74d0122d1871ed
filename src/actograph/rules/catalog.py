"""`DEFAULT_RULES`: every rule that judges a run unless told otherwise.

No idea of how they judge. A rule joins this tuple with a sick run it catches, a healthy run it leaves alone and a near miss.
"""

from __future__ import annotations

from actograph.rules.batch_too_small import BatchTooSmall
from actograph.rules.batchnorm_batch_too_small import BatchNormBatchTooSmall
from actograph.rules.batchnorm_statistics_frozen import BatchNormStatisticsFrozen
from actograph.rules.class_collapse import ClassCollapse
from actograph.rules.clipping_too_tight import ClippingTooTight
from actograph.rules.constant_initialization import ConstantInitialization
from actograph.rules.data_not_shuffled import DataNotShuffled
from actograph.rules.dead_units import DeadUnits
from actograph.rules.detached_graph import DetachedGraph
from actograph.rules.eval_mode_in_training import EvalModeInTraining
from actograph.rules.exploding_gradients import ExplodingGradients
from actograph.rules.fp16_overflow import Fp16Overflow
from actograph.rules.fp16_underflow import Fp16Underflow
from actograph.rules.head_initialization import HeadInitialization
from actograph.rules.initialization_too_large import InitializationTooLarge
from actograph.rules.initialization_too_small import InitializationTooSmall
from actograph.rules.inputs_collapsed import InputsCollapsed
from actograph.rules.inputs_not_normalized import InputsNotNormalized
from actograph.rules.label_never_seen import LabelNeverSeen
from actograph.rules.label_noise import LabelNoise
from actograph.rules.labels_misaligned import LabelsMisaligned
from actograph.rules.learning_rate_decayed_early import LearningRateDecayedEarly
from actograph.rules.learning_rate_too_high import LearningRateTooHigh
from actograph.rules.learning_rate_too_low import LearningRateTooLow
from actograph.rules.loss_diverging import LossDiverging
from actograph.rules.loss_not_decreasing import LossNotDecreasing
from actograph.rules.loss_sign_flipped import LossSignFlipped
from actograph.rules.missing_nonlinearity import MissingNonlinearity
from actograph.rules.missing_normalization import MissingNormalization
from actograph.rules.missing_warmup import MissingWarmup
from actograph.rules.missing_zero_grad import MissingZeroGrad
from actograph.rules.momentum_too_high import MomentumTooHigh
from actograph.rules.non_finite_input import NonFiniteInput
from actograph.rules.non_finite_loss import NonFiniteLoss
from actograph.rules.optimizer_epsilon import OptimizerEpsilon
from actograph.rules.over_regularized import OverRegularized
from actograph.rules.overfitting import Overfitting
from actograph.rules.parameters_not_in_optimizer import ParametersNotInOptimizer
from actograph.rules.rule import Rule
from actograph.rules.saturated_activations import SaturatedActivations
from actograph.rules.softmax_before_cross_entropy import SoftmaxBeforeCrossEntropy
from actograph.rules.softmax_in_hidden_layer import SoftmaxInHiddenLayer
from actograph.rules.stale_optimizer import StaleOptimizer
from actograph.rules.summed_loss import SummedLoss
from actograph.rules.targets_not_scaled import TargetsNotScaled
from actograph.rules.train_mode_in_evaluation import TrainModeInEvaluation
from actograph.rules.train_valid_leak import TrainValidLeak
from actograph.rules.vanishing_gradients import VanishingGradients
from actograph.rules.wrong_loss import WrongLoss

DEFAULT_RULES: tuple[Rule, ...] = (
    EvalModeInTraining(),
    MissingZeroGrad(),
    ParametersNotInOptimizer(),
    StaleOptimizer(),
    DetachedGraph(),
    NonFiniteInput(),
    SoftmaxBeforeCrossEntropy(),
    TrainModeInEvaluation(),
    BatchNormStatisticsFrozen(),
    ConstantInitialization(),
    DataNotShuffled(),
    LabelNeverSeen(),
    InputsCollapsed(),
    MissingWarmup(),
    ExplodingGradients(),
    MomentumTooHigh(),
    BatchTooSmall(),
    OverRegularized(),
    LearningRateTooHigh(),
    LearningRateTooLow(),
    LearningRateDecayedEarly(),
    ClippingTooTight(),
    OptimizerEpsilon(),
    LossSignFlipped(),
    SummedLoss(),
    WrongLoss(),
    InputsNotNormalized(),
    TargetsNotScaled(),
    TrainValidLeak(),
    ClassCollapse(),
    InitializationTooLarge(),
    HeadInitialization(),
    InitializationTooSmall(),
    SoftmaxInHiddenLayer(),
    MissingNonlinearity(),
    MissingNormalization(),
    BatchNormBatchTooSmall(),
    Fp16Overflow(),
    Fp16Underflow(),
    NonFiniteLoss(),
    DeadUnits(),
    SaturatedActivations(),
    VanishingGradients(),
    LabelsMisaligned(),  # these speak where the network is well: of equals they come last
    LabelNoise(),
    Overfitting(),
    LossDiverging(),
    LossNotDecreasing(),
)
