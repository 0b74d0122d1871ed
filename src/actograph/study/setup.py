"""`Setup`: the network, the data and the settings that a study asks its question about.

No idea of any question. It is plain data that a worker process can be given: data and model are named, or are functions that
can be imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import nn

from actograph.data.loaders import Loaders
from actograph.data.open_data import open_data
from actograph.errors import UsageError
from actograph.models.network import Network, Option
from actograph.models.registry import MODELS, build_for_images
from actograph.train.device import choose_device

ModelFunction: TypeAlias = Callable[[int, tuple[int, ...]], nn.Module]  # of num_classes and input_size
DataFunction: TypeAlias = Callable[[int, int], Loaders]  # of batch_size and seed

MIN_SEEDS = 2  # an interval needs a spread, and a spread two values
FUNCTION = ":"  # in a model's name: "file.py:function" or "package.module:function"


@dataclass(frozen=True)
class Setup:
    """What is studied. None stands for a study's own default.

    Attributes:
        data: what `open_data` takes, or a function of (batch_size, seed) that returns ``Loaders``; the data must be the
            same for every seed, which only orders the batches.
        model: a name in `actograph.models.registry.MODELS`, "file.py:function", "package.module:function", or a
            function of (num_classes, input_size) that returns a new network.
        seeds: trainings of each variant: the weights' and the batches' seeds are 0, 1, ...
        epochs: passes over the training data in each training.
        batch_size: samples in a batch, where the study does not vary it.
        lr: learning rate, or a schedule's highest; None looks for it with a range test, once.
        width, network: of a named model: factor for its filters, and further options of its function.
        label_smoothing: of the cross-entropy.
        size: resize a folder's images to this side, in pixels.
        device: auto, cpu, cuda, ...

    """

    data: str | DataFunction = "mnist"
    model: str | ModelFunction = "simple_cnn"
    seeds: int = 5
    epochs: int | None = None
    batch_size: int = 64
    lr: float | None = None
    width: float = 1.0
    network: Mapping[str, Option] = field(default_factory=dict)
    label_smoothing: float = 0.0
    size: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.seeds < MIN_SEEDS:
            raise UsageError(
                f"seeds is {self.seeds}; an interval needs at least {MIN_SEEDS}, and 5 give one that says something"
            )
        if self.epochs is not None and self.epochs < 1:
            raise UsageError(f"epochs is {self.epochs}; give at least 1")
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise UsageError(f"lr is {self.lr}; give a positive rate, such as 0.01")
        if not 0.0 <= self.label_smoothing < 1.0:
            raise UsageError(f"label_smoothing is {self.label_smoothing}; give a share from 0 to below 1")

    @property
    def is_built_in(self) -> bool:
        """Whether the model is one of actograph's own, whose parts a study can vary."""
        return isinstance(self.model, str) and FUNCTION not in self.model

    def open(self, seed: int = 0, batch_size: int | None = None) -> Loaders:
        """Open the data, batches ordered by ``seed``; raises UsageError for data that cannot be used."""
        size = self.batch_size if batch_size is None else batch_size
        if isinstance(self.data, str):
            loaders = open_data(
                self.data, batch_size=size, seed=seed, size=self.size, device=self.torch_device
            )
        else:
            loaders = self.data(size, seed)
        if loaders.num_classes is None or loaders.input_size is None:
            raise UsageError("the data must say num_classes and input_size: give them to Loaders")
        if loaders.valid is None:
            raise UsageError(
                "a study measures on validation data, and these have none: give Loaders a valid loader"
            )
        return loaders

    def build(self, seed: int, loaders: Loaders, **options: Option) -> nn.Module:
        """Build the network with weights of ``seed``; ``options`` go beside, or before, those of a named model."""
        assert loaders.num_classes is not None
        assert loaders.input_size is not None
        torch.manual_seed(seed)
        if self.is_built_in:
            assert isinstance(self.model, str)
            return self._build_named(self.model, loaders, {**self.network, **options})
        if options:
            raise UsageError(
                f"{', '.join(options)} cannot be set in {self.told_model}, a function of the user's"
            )
        function = imported(self.model) if isinstance(self.model, str) else self.model
        model = function(loaders.num_classes, loaders.input_size)
        if not isinstance(model, nn.Module):
            raise UsageError(f"{self.told_model} returned a {type(model).__name__}, not a torch.nn.Module")
        return model

    def _build_named(self, name: str, loaders: Loaders, options: dict[str, Option]) -> Network:
        assert loaders.num_classes is not None
        assert loaders.input_size is not None
        return build_for_images(name, loaders.num_classes, loaders.input_size, self.width, **options)

    @property
    def loss_func(self) -> nn.Module:
        """The loss all trainings have: cross-entropy."""
        return nn.CrossEntropyLoss(label_smoothing=self.label_smoothing)

    @property
    def torch_device(self) -> torch.device:
        """The device of that name; raises UsageError where it cannot be used."""
        return choose_device(self.device)

    @property
    def told_model(self) -> str:
        """The model in a few words."""
        return self.model if isinstance(self.model, str) else _import_path(self.model)

    @property
    def told_data(self) -> str:
        """The data in a few words."""
        return self.data if isinstance(self.data, str) else _import_path(self.data)

    def check(self) -> None:
        """Raise UsageError where the model cannot be run on the data: one batch goes through."""
        loaders = self.open()
        model = self.build(0, loaders).to(self.torch_device).eval()
        x, y = next(iter(loaders.train))
        try:
            with torch.no_grad():
                loss = self.loss_func(model(x.to(self.torch_device)), y.to(self.torch_device))
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(
                f"{self.told_model} cannot be run on {self.told_data}, batches of shape {tuple(x.shape)}: {reason}"
            ) from error
        if not math.isfinite(loss.item()):
            raise UsageError(
                f"the loss of a first batch is {loss.item()}: look at {self.told_data} and {self.told_model}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return what tells two setups apart, as plain data; seeds are not in it: more of them go on with a study."""
        return {
            "data": self.told_data,
            "model": self.told_model,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "width": self.width,
            "network": dict(self.network),
            "label_smoothing": self.label_smoothing,
            "size": self.size,
            "device": self.device,
        }


def imported(name: str) -> ModelFunction:
    """Return the function that "file.py:function" or "package.module:function" names; raises UsageError.

    >>> imported("torch.nn:Linear").__name__
    'Linear'
    """
    place, _, function = name.rpartition(FUNCTION)
    module = _module_of_file(Path(place)) if place.endswith(".py") else _module_of_name(place)
    found = getattr(module, function, None)
    if not callable(found):
        raise UsageError(
            f"{place} has no function {function!r}; give FILE.py:FUNCTION or package.module:FUNCTION"
        )
    return found  # type: ignore[no-any-return]


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise UsageError(
            f"{path} does not exist; give FILE.py:FUNCTION, or a model's name: {', '.join(sorted(MODELS))}"
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(path.stem, module)  # classes of it can be pickled
    sys.path.insert(0, str(path.resolve().parent))  # what it imports beside itself
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def _module_of_name(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{name!r} cannot be imported ({error}); give FILE.py:FUNCTION or package.module:FUNCTION"
        ) from error


def _import_path(function: Callable[..., object]) -> str:
    return f"{function.__module__}:{getattr(function, '__qualname__', type(function).__qualname__)}"
