"""Train with a loop you can read, record what every layer did, and be told what is wrong.

The public names are below, each loaded when it is first used: a report opens without torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

PUBLIC_NAMES = {
    "Accuracy": "actograph.train.metrics",
    "ActivationStats": "actograph.callbacks.activation_stats",
    "ActivationView": "actograph.show.activations",
    "ActographError": "actograph.errors",
    "Callback": "actograph.train.events",
    "Diagnosis": "actograph.rules.rule",
    "Finding": "actograph.rules.rule",
    "Learner": "actograph.learner",
    "Loaders": "actograph.data.loaders",
    "Loop": "actograph.train.loop",
    "Progress": "actograph.callbacks.progress",
    "Recorder": "actograph.callbacks.recorder",
    "Recording": "actograph.recording.recording",
    "RunView": "actograph.runlog.view",
    "SkipBatch": "actograph.train.state",
    "SkipStep": "actograph.train.state",
    "Stage": "actograph.train.events",
    "StopFit": "actograph.train.state",
    "Supervised": "actograph.train.step",
    "TensorLoader": "actograph.data.loaders",
    "TrainStep": "actograph.train.step",
    "UsageError": "actograph.errors",
    "conv_block": "actograph.models.blocks",
    "diagnose": "actograph.rules.diagnose",
    "digits": "actograph.data.digits",
    "image_folder": "actograph.data.image_folder",
    "layer_table": "actograph.models.table",
    "open_run": "actograph.show.run",
    "simple_cnn": "actograph.models.cnn",
    "watch": "actograph.recording.watch",
}

if TYPE_CHECKING:
    from actograph.callbacks.activation_stats import ActivationStats as ActivationStats
    from actograph.callbacks.progress import Progress as Progress
    from actograph.callbacks.recorder import Recorder as Recorder
    from actograph.data.digits import digits as digits
    from actograph.data.image_folder import image_folder as image_folder
    from actograph.data.loaders import Loaders as Loaders
    from actograph.data.loaders import TensorLoader as TensorLoader
    from actograph.errors import ActographError as ActographError
    from actograph.errors import UsageError as UsageError
    from actograph.learner import Learner as Learner
    from actograph.models.blocks import conv_block as conv_block
    from actograph.models.cnn import simple_cnn as simple_cnn
    from actograph.models.table import layer_table as layer_table
    from actograph.recording.recording import Recording as Recording
    from actograph.recording.watch import watch as watch
    from actograph.rules.diagnose import diagnose as diagnose
    from actograph.rules.rule import Diagnosis as Diagnosis
    from actograph.rules.rule import Finding as Finding
    from actograph.runlog.view import RunView as RunView
    from actograph.show.activations import ActivationView as ActivationView
    from actograph.show.run import open_run as open_run
    from actograph.train.events import Callback as Callback
    from actograph.train.events import Stage as Stage
    from actograph.train.loop import Loop as Loop
    from actograph.train.metrics import Accuracy as Accuracy
    from actograph.train.state import SkipBatch as SkipBatch
    from actograph.train.state import SkipStep as SkipStep
    from actograph.train.state import StopFit as StopFit
    from actograph.train.step import Supervised as Supervised
    from actograph.train.step import TrainStep as TrainStep

__all__ = ["__version__", *PUBLIC_NAMES]  # noqa: PLE0604 - names of a dictionary are strings


def __getattr__(name: str) -> Any:
    if name not in PUBLIC_NAMES:
        raise AttributeError(f"module 'actograph' has no attribute {name!r}")
    value = getattr(importlib.import_module(PUBLIC_NAMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
