"""`ModeFacts`: in which mode models were while gradients flowed, and while they were evaluated.

No idea of optimizers' parameters; who updates what is said by the caller. Only modules that compute differently in the two
modes count: dropout, and norms with running statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from weakref import ref

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from actograph.hooks.leaves import ROOT_NAME, tensors_of
from actograph.runlog.facts import FactKind, FactTable


@dataclass
class _ModeDependent:
    """A module that computes differently in training and in evaluation."""

    name: str
    module: ref[nn.Module]
    parent: ref[nn.Module]

    @property
    def kind(self) -> str:
        """The module's class; a lazy one changes it."""
        return type(self.module()).__name__

    def is_frozen(self) -> bool:
        """Tell whether its own parameters, or else its parent's, are all frozen: then its mode is its owner's choice."""
        module, parent = self.module(), self.parent()
        own = list(module.parameters()) if module is not None else []
        own = own or (list(parent.parameters()) if parent is not None else [])
        return bool(own) and not any(parameter.requires_grad for parameter in own)


@dataclass
class _Model:
    name: str
    dependent: list[_ModeDependent]
    is_trained: bool = False  # a forward in training mode, gradients enabled, since the last update
    is_eval_trained: bool = False  # gradients have flowed through one in evaluation mode since
    evaluated_in: bool | None = None  # the mode of a forward without gradients that no loss has followed yet
    resting: list[str] = field(default_factory=list)  # modules noted as in evaluation mode


class ModeFacts:
    """Told of forwards, losses and updates; notes modes."""

    def __init__(self, table: FactTable) -> None:
        self._table = table
        self._models: dict[int, _Model] = {}

    def add_model(self, model: nn.Module, prefix: str) -> None:
        """Take a model into account; its modules are looked up once."""
        self._models[id(model)] = _Model(prefix.rstrip(".") or ROOT_NAME, _mode_dependent(model, prefix))

    def forget_model(self, key: int) -> None:
        """Let go of a model that is gone."""
        self._models.pop(key, None)

    def enter(self, model: nn.Module, *, is_validation: bool, step: int) -> None:
        """Note the mode in which a forward of the model begins."""
        state = self._models[id(model)]
        if not state.dependent:
            return
        if is_validation:
            self._evaluated(state, step, is_training=not _is_whole_in_eval(model))
        elif not torch.is_grad_enabled():
            state.evaluated_in = not _is_whole_in_eval(model)
        else:
            state.evaluated_in = None
            if not _is_whole_in_eval(model):
                state.is_trained = True

    def leave(self, model: nn.Module, output: object) -> None:
        """Wait for a gradient by the output of a forward in evaluation mode: then it was none."""
        state = self._models[id(model)]
        if state.is_trained or not state.dependent or not torch.is_grad_enabled():
            return
        for _, tensor in tensors_of(output):
            if tensor.requires_grad and not tensor.is_leaf and _is_whole_in_eval(model):
                tensor.register_hook(_Flow(state))  # type: ignore[no-untyped-call]
                return

    def note_loss(self, step: int) -> None:
        """Take models that were just called without gradients as evaluated: a loss was computed without them too."""
        for state in tuple(self._models.values()):
            if state.evaluated_in is not None:
                self._evaluated(state, step, is_training=state.evaluated_in)
                state.evaluated_in = None

    def after_update(self, models: Sequence[int], step: int, *, is_recorded: bool) -> None:
        """Note in which mode these models, by id, were when they got the gradients that an optimizer has used."""
        for key in models:
            state = self._models.get(key)
            if state is None:
                continue
            if state.dependent and (state.is_trained or state.is_eval_trained):
                self._table.look(FactKind.EVAL_IN_TRAINING, step)
                if state.is_eval_trained and not state.is_trained:
                    self._note_resting(state, step, is_whole=True)
                elif is_recorded or state.resting:
                    self._note_resting(state, step, is_whole=False)
            state.is_trained = state.is_eval_trained = False
        for state in tuple(self._models.values()):
            state.evaluated_in = None  # a forward without gradients before an update belongs to the training

    def _note_resting(self, state: _Model, step: int, *, is_whole: bool) -> None:
        resting = [
            one for one in state.dependent if (module := one.module()) is not None and not module.training
        ]
        if not resting and not state.resting:
            return
        active = [one for one in resting if not one.is_frozen()]
        names = [one.name for one in active]
        for one in active:
            self._table.note(
                FactKind.EVAL_IN_TRAINING,
                one.name,
                step,
                kind=one.kind,
                whole=float(is_whole),
            )
        for name in set(state.resting) - set(names):
            self._table.end(FactKind.EVAL_IN_TRAINING, name)
        state.resting = names

    def _evaluated(self, state: _Model, step: int, *, is_training: bool) -> None:
        """Note an evaluation; its data are how many were in which mode, and the first module that makes a difference."""
        kind = FactKind.MODE_IN_EVALUATION
        self._table.look(kind, step)
        old = self._table.get(kind, state.name)
        counts = {name: old.number(name) if old else 0.0 for name in ("in_training", "in_evaluation")}
        counts["in_training" if is_training else "in_evaluation"] += 1
        first = state.dependent[0]
        self._table.note(kind, state.name, step, **counts, layer=first.name, kind=first.kind)


class _Flow:
    """A hook on an output that changes nothing."""

    __slots__ = ("_state",)

    def __init__(self, state: _Model) -> None:
        self._state = state

    def __call__(self, gradient: Tensor) -> None:
        self._state.is_eval_trained = True


def _is_whole_in_eval(model: nn.Module) -> bool:
    """Tell whether a model, or all that it wraps, is in evaluation mode."""
    children = list(model.children())
    return not model.training or (bool(children) and not any(child.training for child in children))


def _mode_dependent(model: nn.Module, prefix: str) -> list[_ModeDependent]:
    found = []
    parents = {id(child): parent for parent in model.modules() for child in parent.children()}
    for name, module in model.named_modules():
        if _depends_on_mode(module):
            parent = parents.get(id(module), module)
            found.append(_ModeDependent(prefix + (name or ROOT_NAME), ref(module), ref(parent)))
    return found


def _depends_on_mode(module: nn.Module) -> bool:
    if isinstance(module, _NormBase):
        return module.track_running_stats
    if isinstance(module, _DropoutNd):
        return module.p > 0
    if isinstance(module, (nn.RNNBase, nn.MultiheadAttention)):
        return float(module.dropout) > 0
    return isinstance(module, nn.RReLU)
