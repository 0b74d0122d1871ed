"""Train with a loop you can read, record what every layer did, and be told what is wrong.

The public names are below, each loaded when it is first used: a report opens without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

PUBLIC_NAMES = {
    "Accumulate": "actograph.train.step_accumulate",
    "Accuracy": "actograph.train.metrics",
    "ActivationStats": "actograph.callbacks.activation_stats",
    "ActivationView": "actograph.show.activations",
    "ActographError": "actograph.errors",
    "AveragedWeights": "actograph.callbacks.averaged_weights",
    "CSVLog": "actograph.callbacks.csv_log",
    "Callback": "actograph.train.events",
    "Chapter": "actograph.study.chapter",
    "Checkpoint": "actograph.callbacks.checkpoint",
    "Clip": "actograph.train.step_clip",
    "Compose": "actograph.data.augment",
    "ConfusionMatrix": "actograph.train.metrics_classes",
    "CutMix": "actograph.callbacks.mixing",
    "Cutout": "actograph.data.augment",
    "Diagnosis": "actograph.rules.rule",
    "EarlyStopping": "actograph.callbacks.early_stopping",
    "F1": "actograph.train.metrics_classes",
    "Finding": "actograph.rules.rule",
    "GradientStats": "actograph.callbacks.gradient_stats",
    "GradientView": "actograph.show.parameters",
    "Guard": "actograph.callbacks.guard",
    "LRFind": "actograph.sweep.result",
    "LRScheduler": "actograph.callbacks.lr_scheduler",
    "Learner": "actograph.learner",
    "Loaders": "actograph.data.loaders",
    "Loop": "actograph.train.loop",
    "MAE": "actograph.train.metrics_errors",
    "MixUp": "actograph.callbacks.mixing",
    "MixedPrecision": "actograph.train.step_precision",
    "Normalization": "actograph.data.normalization",
    "PerClassAccuracy": "actograph.train.metrics_classes",
    "Progress": "actograph.callbacks.progress",
    "RMSE": "actograph.train.metrics_errors",
    "RandomAffine": "actograph.data.augment",
    "RandomCrop": "actograph.data.augment",
    "RandomHorizontalFlip": "actograph.data.augment",
    "RandomVerticalFlip": "actograph.data.augment",
    "Recorder": "actograph.callbacks.recorder",
    "Recording": "actograph.recording.recording",
    "RunView": "actograph.runlog.view",
    "ScheduleParams": "actograph.callbacks.schedule",
    "Setup": "actograph.study.setup",
    "SkipBatch": "actograph.train.state",
    "SkipStep": "actograph.train.state",
    "Stage": "actograph.train.events",
    "StopFit": "actograph.train.state",
    "Study": "actograph.study.study",
    "Supervised": "actograph.train.step",
    "TensorLoader": "actograph.data.loaders",
    "TopK": "actograph.train.metrics",
    "TrainStep": "actograph.train.step",
    "UsageError": "actograph.errors",
    "build_model": "actograph.models.registry",
    "conv_block": "actograph.models.blocks",
    "diagnose": "actograph.rules.diagnose",
    "digits": "actograph.data.digits",
    "find_step": "actograph.train.step_wrapper",
    "fused": "actograph.train.optimizers",
    "image_folder": "actograph.data.image_folder",
    "layer_table": "actograph.models.table",
    "load_model": "actograph.inference.export",
    "make_study": "actograph.study.catalog",
    "mlp": "actograph.models.mlp",
    "open_data": "actograph.data.open_data",
    "open_run": "actograph.show.run",
    "resnet": "actograph.models.residual",
    "simple_cnn": "actograph.models.cnn",
    "watch": "actograph.observe.watch",
}

if TYPE_CHECKING:
    from actograph.callbacks.activation_stats import ActivationStats as ActivationStats
    from actograph.callbacks.averaged_weights import AveragedWeights as AveragedWeights
    from actograph.callbacks.checkpoint import Checkpoint as Checkpoint
    from actograph.callbacks.csv_log import CSVLog as CSVLog
    from actograph.callbacks.early_stopping import EarlyStopping as EarlyStopping
    from actograph.callbacks.gradient_stats import GradientStats as GradientStats
    from actograph.callbacks.guard import Guard as Guard
    from actograph.callbacks.lr_scheduler import LRScheduler as LRScheduler
    from actograph.callbacks.mixing import CutMix as CutMix
    from actograph.callbacks.mixing import MixUp as MixUp
    from actograph.callbacks.progress import Progress as Progress
    from actograph.callbacks.recorder import Recorder as Recorder
    from actograph.callbacks.schedule import ScheduleParams as ScheduleParams
    from actograph.data.augment import Compose as Compose
    from actograph.data.augment import Cutout as Cutout
    from actograph.data.augment import RandomAffine as RandomAffine
    from actograph.data.augment import RandomCrop as RandomCrop
    from actograph.data.augment import RandomHorizontalFlip as RandomHorizontalFlip
    from actograph.data.augment import RandomVerticalFlip as RandomVerticalFlip
    from actograph.data.digits import digits as digits
    from actograph.data.image_folder import image_folder as image_folder
    from actograph.data.loaders import Loaders as Loaders
    from actograph.data.loaders import TensorLoader as TensorLoader
    from actograph.data.normalization import Normalization as Normalization
    from actograph.data.open_data import open_data as open_data
    from actograph.errors import ActographError as ActographError
    from actograph.errors import UsageError as UsageError
    from actograph.inference.export import load_model as load_model
    from actograph.learner import Learner as Learner
    from actograph.models.blocks import conv_block as conv_block
    from actograph.models.cnn import simple_cnn as simple_cnn
    from actograph.models.mlp import mlp as mlp
    from actograph.models.registry import build_model as build_model
    from actograph.models.residual import resnet as resnet
    from actograph.models.table import layer_table as layer_table
    from actograph.observe.watch import watch as watch
    from actograph.recording.recording import Recording as Recording
    from actograph.rules.diagnose import diagnose as diagnose
    from actograph.rules.rule import Diagnosis as Diagnosis
    from actograph.rules.rule import Finding as Finding
    from actograph.runlog.view import RunView as RunView
    from actograph.show.activations import ActivationView as ActivationView
    from actograph.show.parameters import GradientView as GradientView
    from actograph.show.run import open_run as open_run
    from actograph.study.catalog import make_study as make_study
    from actograph.study.chapter import Chapter as Chapter
    from actograph.study.setup import Setup as Setup
    from actograph.study.study import Study as Study
    from actograph.sweep.result import LRFind as LRFind
    from actograph.train.events import Callback as Callback
    from actograph.train.events import Stage as Stage
    from actograph.train.loop import Loop as Loop
    from actograph.train.metrics import Accuracy as Accuracy
    from actograph.train.metrics import TopK as TopK
    from actograph.train.metrics_classes import F1 as F1
    from actograph.train.metrics_classes import ConfusionMatrix as ConfusionMatrix
    from actograph.train.metrics_classes import PerClassAccuracy as PerClassAccuracy
    from actograph.train.metrics_errors import MAE as MAE
    from actograph.train.metrics_errors import RMSE as RMSE
    from actograph.train.optimizers import fused as fused
    from actograph.train.state import SkipBatch as SkipBatch
    from actograph.train.state import SkipStep as SkipStep
    from actograph.train.state import StopFit as StopFit
    from actograph.train.step import Supervised as Supervised
    from actograph.train.step import TrainStep as TrainStep
    from actograph.train.step_accumulate import Accumulate as Accumulate
    from actograph.train.step_clip import Clip as Clip
    from actograph.train.step_precision import MixedPrecision as MixedPrecision
    from actograph.train.step_wrapper import find_step as find_step

__all__ = ["__version__", *PUBLIC_NAMES]  # noqa: PLE0604 - names of a dictionary are strings


def __getattr__(name: str) -> Any:
    if name not in PUBLIC_NAMES:
        raise AttributeError(f"module 'actograph' has no attribute {name!r}")
    value = getattr(importlib.import_module(PUBLIC_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
