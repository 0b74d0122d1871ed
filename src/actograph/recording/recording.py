"""`Recording`: hooks, optimizer and run log joined. The one object through which every driver records.

No idea of who drives: our Learner's callback, `watch` in a hand-written loop, or an observed script. Seven methods are all
a driver needs: `attach`, `optimizer`, `phase`, `loss`, `gradients`, `step`, `close`. A step ends when the first optimizer
given has stepped; micro-batches before that merge into it. Steps count from 0 over the life of the recording. A driver that
sees every optimizer's step by itself gives them with ``hooked=False`` and says what comes when: `begin_update`,
`end_update`, `note_update`, `note_losses`, `end_step`. For facts (docs/design/0013) a driver also says `before_backward` and
`loss_call`, or `targets`. No model and no optimizer is kept alive.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
import warnings
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from actograph.errors import UsageError
from actograph.hooks.functional import AUTO, Functional, FunctionalHooks, check_functional
from actograph.hooks.layer_hooks import LayerHooks, OnError, OnRemark, hooks_on
from actograph.hooks.leaves import Select
from actograph.hooks.recomputation import will_be_repeated
from actograph.layout.layer import LayerInfo
from actograph.layout.row import Counts, Floats
from actograph.recording.cadence import EveryNth
from actograph.recording.facts.loss_call import NO_CLASS, LossCall
from actograph.recording.facts.recorder import FactRecorder
from actograph.recording.lifetimes import Lifetimes
from actograph.recording.order import LayerOrder
from actograph.recording.pacing import FREE_S, Pacer
from actograph.recording.parameters import ParameterRecorder
from actograph.runlog.buckets import Bucket
from actograph.runlog.store import RunWriter
from actograph.runlog.view import RunView
from actograph.sketch.block import Block
from actograph.sketch.native import Bytes
from actograph.sketch.transit import StepRows
from actograph.train.distributed import makes_copies, plain_model
from actograph.train.momentum import momentum_of
from actograph.train.waiting import MAX_WAITING, Waiting

MAX_ON_THE_WAY = 64  # steps whose rows may be on their way: each holds 3 KB a layer of pinned memory

LOSS_SHARE = 0.25  # of the budget, for what comes of the samples: it costs less than layers, so more steps are looked at
TRAIN = "train"
VALID = "valid"
LOSS_MEMORY = 0.2  # weight of a loss in their running mean: about the last five steps
STRANGE_RISE = 1.0  # of the running mean: a loss twice as high
LOSS = "loss"


class Recording:
    """Records models and optimizers into one run.

    Args:
        writer: the run.
        select: which layers to record; None means all leaves.
        budget: share of the step time that recording may take; None records every step.
        clock: seconds, for tests.
        layers: whether to record the layers' outputs.
        grad: whether to record the gradients by these outputs too.
        every: record every so many steps, whatever they cost; ``budget`` must be None then.
        functional: whether to record activations that are called as functions; "auto": if the first forward has some.

    """

    def __init__(
        self,
        writer: RunWriter,
        select: Select | None = None,
        budget: float | None = 0.03,
        clock: Callable[[], float] = time.perf_counter,
        *,
        layers: bool = True,
        grad: bool = False,
        every: int | None = None,
        functional: Functional = AUTO,
    ) -> None:
        assert every is None or budget is None, "one of the two sets the pace"
        self._writer = writer
        self._select = select
        self._pacer = Pacer(budget) if every is None else EveryNth(every)
        loss_budget = None if budget is None else LOSS_SHARE * budget
        self._loss_pacer = EveryNth(every) if every else Pacer(loss_budget, free_s=LOSS_SHARE * FREE_S)
        self._clock = clock
        self._block = Block()
        self._order = LayerOrder()
        self._models = Lifetimes[nn.Module](self._let_go_of_model)
        self._num_models = 0  # seen so far
        self._hooks: dict[int, LayerHooks] = {}  # by id of the model, while it lives
        self._functions: dict[int, FunctionalHooks] = {}  # likewise
        # of models that are gone while parts of them may live
        self._orphans: list[tuple[LayerHooks, FunctionalHooks]] = []
        self._has_seen_compiled = False  # in a model that is gone
        self._functional = check_functional(functional) if layers else False
        self._layers = layers
        self._grad = grad
        self.on_error: OnError | None = None  # of models attached from now on: see `LayerHooks`
        self.on_remark: OnRemark | None = None  # told, not warned of, what is not recorded
        self._optimizers = Lifetimes[torch.optim.Optimizer](self._let_go_of_optimizer)
        self._numbers: dict[
            int, int
        ] = {}  # of optimizers in the order in which they came, by id, while they live
        self._known: dict[int, ref[torch.optim.Optimizer]] = {}  # by number
        self._num_optimizers = 0  # seen so far
        self._handles: dict[int, list[RemovableHandle]] = {}  # by number
        self._parameters = ParameterRecorder(writer)
        self._facts = FactRecorder(writer)
        self._parameters_s = 0.0  # what measuring parameters took in the open step
        self._outcomes_s = 0.0  # what looking at its losses took
        self._ahead_s = 0.0  # what was done for the next recorded step ahead of it
        self._phase: str | None = None
        self._loss_scale = 1.0
        self._is_told_losses = self._is_told_scale = False  # by a driver, not seen
        self.undo = contextlib.ExitStack()  # what a driver has put in place, left when the hooks come off
        self.is_scoped = False  # used as a context manager, which closes it
        self.is_paused = False  # what is trained meanwhile is going to be thrown away: a search for a rate
        self.is_watching = False  # `watch` has made it, and may close it
        self._step = 0
        self.has_forward = False  # gradients enabled, in whatever mode, since the last step ended
        self._step_began_s: float | None = None  # when the first forward of the open step began
        self._step_ended_s: float | None = None  # when the one before it ended
        self._usual_loss: float | None = None  # running mean
        self._losses: list[Tensor | float] = []  # of the open step's micro-batches
        self._on_the_way: deque[tuple[int, StepRows]] = deque()  # rows, by step
        self._left_out: list[Tensor | float] = []  # losses of the last update that a scaler left out in it
        self._divisors: set[float] = set()  # what they were divided by
        self._accumulates = 1.0  # the number of micro-batches by which losses are known to be divided
        self._waiting = Waiting[tuple[str, int]]()  # losses, by name and step
        self._num_waiting = 0  # numbers of steps that wait on a device

    # The seven methods of a driver

    def attach(self, model: nn.Module, *, is_running: bool = False, inputs: object = ()) -> None:
        """Record the model's layers from its next forward on; a model known already is taken up again.

        ``is_running`` says that a forward of it has begun, with these ``inputs``, which is recorded then.
        """
        if plain_model(model) is not model:  # its forward, in which the model's is called, may have begun
            model, is_running = plain_model(model), False
        hooks = self._hooks.get(id(model))
        if hooks is None:
            prefix = f"{type(model).__name__.lower()}{self._num_models}." if self._num_models else ""
            hooks = LayerHooks(
                model, self._block, self._add_layer, self._gate, self._select, prefix, self._clock,
                outputs=self._layers, gradients=self._grad, on_error=self.on_error, listener=_ForwardFacts(self),
                on_remark=self._note_remark,
            )  # fmt: skip
            self._hooks[self._models.add(model)] = hooks
            self._num_models += 1
            self._functions[id(model)] = FunctionalHooks(
                hooks, self._functional if self._layers else False, self._select, prefix
            )
            self._parameters.add_model(model, prefix)
            self._facts.add_model(model, prefix)
        hooks.attach()
        functions = self._functions[id(model)]
        functions.attach()
        self._writer.reopen()
        if is_running:
            hooks.close_forward()
            hooks.enter(inputs)
            functions.begin()

    def optimizer(
        self, optimizer: torch.optim.Optimizer, *, gradients: bool = False, hooked: bool = True
    ) -> None:
        """Record the optimizer's rate and momentum, and with ``gradients`` also the gradients, weights and updates.

        The first optimizer given ends the steps. Given again it is taken up anew. With ``hooked=False`` the caller says when
        it steps.
        """
        if optimizer not in self._optimizers:
            self._numbers[self._optimizers.add(optimizer)] = self._num_optimizers
            self._known[self._num_optimizers] = ref(optimizer)
            self._num_optimizers += 1
        index = self.number_of(optimizer)
        self._facts.add_optimizer(index, optimizer, _suffix(index, 0))
        if gradients:
            self._parameters.add_optimizer(index, optimizer, _suffix(index, 0))
        else:
            self._parameters.discard(index)
        for handle in self._handles.pop(index, ()):
            handle.remove()
        handles = self._handles[index] = []
        if not hooked:
            return
        handles.append(optimizer.register_step_pre_hook(self.begin_update))
        handles.append(optimizer.register_step_post_hook(self.end_update))
        handles.append(optimizer.register_step_post_hook(self.note_update))
        if index == 0:
            handles.append(optimizer.register_step_post_hook(self._after_optimizer_step))

    def phase(self, name: str | None, **details: Any) -> None:
        """Say what follows: "train", "valid", or None when not known (then a model in training mode is recorded)."""
        self._phase = name
        if name is not None:
            self._writer.add_event(self._step, "phase", name=name, **details)

    def loss(self, value: Tensor | float) -> None:
        """Note the loss of a micro-batch of the open step; a tensor is not brought to the host here.

        Losses that were only seen count no more from then on.
        """
        if not self._is_told_losses:
            self._is_told_losses = True
            self._losses, self._divisors = [], set()
        self._note_one_loss(value, 1.0)

    def see_loss(self, value: Tensor | float, *, divided_by: float = 1.0) -> None:
        """Note a loss that was seen, unless somebody says the losses.

        A step's loss is the mean of its micro-batches'; if each was ``divided_by`` their number already, their sum.
        """
        if self._loss_pacer.records_now:
            self._facts.note_backward(value, self._step)
        if not self._is_told_losses:
            self._note_one_loss(value, divided_by)

    def _note_one_loss(self, value: Tensor | float, divided_by: float) -> None:
        if isinstance(value, Tensor) and value.device.type == "cpu":
            value = value.item()  # no sync: it is on the host
        if isinstance(value, float) and (self._is_strange(value) or self._facts.has_doubts):
            self._facts.note_strange_loss(self._step)
        self._losses.append(value.detach() if isinstance(value, Tensor) else value)
        self._divisors.add(divided_by)

    def _is_strange(self, loss: float) -> bool:
        """Tell whether a loss is not finite or lies well above the last ones: then a thinned run looks at this step too."""
        if not math.isfinite(loss):
            return True
        usual = self._usual_loss
        self._usual_loss = loss if usual is None else usual + LOSS_MEMORY * (loss - usual)
        return usual is not None and loss - usual > STRANGE_RISE * abs(usual)

    def before_backward(self, loss: Tensor | None = None) -> None:
        """Say that a backward is about to begin, and with which number where `see_loss` is not going to say it.

        Where nobody does, gradients left over are not looked for.
        """
        self._facts.before_backward()
        if loss is not None and self._loss_pacer.records_now:
            self._facts.note_backward(loss, self._step)

    def targets(self, outputs: object, targets: object, ignored: int = NO_CLASS) -> None:
        """Say what a cross-entropy was given: logits (N, C, ...), class numbers (N, ...), and the one it leaves out."""
        self.loss_call(LossCall("cross_entropy", outputs, targets, ignored))

    def loss_call(self, call: LossCall) -> None:
        """Say what one of torch's losses was computed of; without gradients it belongs to an evaluation."""
        if not torch.is_grad_enabled():
            if self._phase != TRAIN:
                self._facts.note_evaluated(call, self._step)
        elif self._loss_pacer.records_now and self._phase in (None, TRAIN):
            began_s = self._clock()
            self._facts.note_loss_call(call, self._step)
            self._outcomes_s += self._clock() - began_s

    def scaled_step(self, optimizer: torch.optim.Optimizer, scale: float, *, has_moved: bool) -> None:
        """Say that a gradient scaler was asked for an update, and whether it let the optimizer move (else its ``scale``).

        An update that was left out ends no step; its loss does not count, unless nothing follows it.
        """
        if optimizer not in self._optimizers:
            return
        index = self.number_of(optimizer)
        step = max(self._step - 1, 0) if has_moved and index == 0 else self._step  # it has ended the step
        self._facts.scaled_step(f"optimizer{_suffix(index, 0)}", step, scale, has_moved=has_moved)
        if index == 0 and not has_moved:
            self._left_out, self._losses, self._divisors = self._losses, [], set()

    def gradients(self) -> None:
        """Say that the gradients of the open step are complete, unscaled and not clipped.

        Where nobody says so they are measured when the optimizer begins, and the clip ratio is not known.
        """
        if self._pacer.records_now:
            began_s = self._clock()
            self._parameters.measure_gradients()
            self._facts.note_gradients()
            self._parameters_s += self._clock() - began_s

    def clips(self, kind: str, limit: float) -> None:
        """Say that gradients are about to be clipped, by ``kind`` "norm" or "value", at a limit."""
        if self._pacer.records_now:
            self._facts.note_clip(kind, limit, self._step)

    def step(self, **scalars: float) -> None:
        """Note scalars; in a training loop without an optimizer given, this ends the step as well.

        In the training phase they belong to the step that ended last, in another phase to the end of what was trained.
        """
        if not self._num_optimizers and self._phase in (None, TRAIN):
            self.end_step()
        at = max(self._step - 1, 0)
        for name, value in scalars.items():
            if self._phase == VALID:
                self._facts.note_told(name)
            self._writer.add_scalar(name, at, float(value), self._phase or TRAIN)

    def close(self, status: str = "finished") -> None:
        """Take all hooks off and store the rest. ``status`` is finished, stopped, interrupted or failed."""
        self.detach()
        self._losses = self._losses or self._left_out
        if any(not math.isfinite(loss) for loss in self._losses):
            self.end_step()  # a NaN ended the training before the optimizer could end the step: it is what there is to see
        self._losses = []
        self._facts.close()
        self._drain()
        for number in range(self._num_optimizers):
            self._parameters.discard(number)  # lets go of its copy of the weights
        self._note_cost()
        self._writer.close(status)

    def detach(self) -> None:
        """Take all hooks off and store nothing: what was recorded stays with this object."""
        for functions in (*self._functions.values(), *(one for _, one in self._orphans)):
            functions.detach()
        for hooks in self._all_hooks:
            hooks.detach()
        handles, self._handles = self._handles, {}
        for handle in itertools.chain(*handles.values()):
            handle.remove()
        self._facts.forget()
        self.undo.close()

    # What can be asked of it

    @property
    def path(self) -> Path | None:
        """The run directory; None when the run lives in memory."""
        return self._writer.directory

    @property
    def loss_scale(self) -> float:
        """What the loss is multiplied with before its backward; gradients by outputs are divided by it."""
        return self._loss_scale

    @loss_scale.setter
    def loss_scale(self, scale: float) -> None:
        self._is_told_scale = True
        self._set_scale(scale)

    def see_scale(self, scale: float) -> None:
        """Take a scale that was seen for that of the loss, unless somebody says it."""
        if not self._is_told_scale:
            self._set_scale(scale)

    def _set_scale(self, scale: float) -> None:
        self._loss_scale = scale
        for hooks in self._all_hooks:
            hooks.loss_scale = scale

    @property
    def num_steps(self) -> int:
        """Steps ended so far."""
        return self._step

    @property
    def is_open(self) -> bool:
        """Whether a training forward was seen since the last step ended."""
        return self._step_began_s is not None

    @property
    def has_seen_compiled(self) -> bool:
        """Whether a layer in compiled code was measured."""
        return self._has_seen_compiled or any(one.has_seen_compiled for one in self._all_hooks)

    def number_of(self, optimizer: torch.optim.Optimizer) -> int:
        """Return how many optimizers had been given before this one, which must have been."""
        return self._numbers[id(optimizer)]

    def __contains__(self, optimizer: object) -> bool:
        return optimizer in self._optimizers

    def view(self) -> RunView:
        """Return the run as it is now."""
        self._drain()
        self._note_cost()
        return self._writer.view()

    def state_dict(self) -> dict[str, Any]:
        """Return the whole run, and where it stands between two steps; ``run`` is None where storing it has failed."""
        self._drain()
        self._note_cost()
        data = self._writer.backup()
        run = None if data is None else torch.frombuffer(bytearray(data), dtype=torch.uint8)
        return {"step": self._step, "run": run}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on, in this recording's own run, from what `state_dict` returned; only before the first forward.

        Raises UsageError where other parameters were recorded than will be.
        """
        assert not self._order.num_layers, "layers were recorded already"
        self._step = state["step"]
        info = self._writer.info
        self._writer.info = replace(info, config={**info.config, "resumed_at_step": self._step})
        if state["run"] is None or info.rank:  # what was saved is the history of rank 0
            return
        parameters = list(self._writer.parameters)
        self._writer.restore(state["run"].numpy().tobytes())
        if self._writer.parameters != parameters:
            raise UsageError(
                "the checkpoint's run has other parameters: record the gradients of the same optimizer"
            )
        self._pacer.take_up(self._writer.info.cost)

    def __enter__(self) -> Recording:
        self.is_scoped = True
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self.close(status_after(kind))

    # Inside

    def _gate(self, model: nn.Module) -> bool:
        """Tell whether a forward that begins is a training forward of a step to record."""
        if self.is_paused:
            return False
        if torch.is_grad_enabled():
            self.has_forward = self.has_forward or self._phase in (None, TRAIN)
        if not (model.training if self._phase is None else self._phase == TRAIN):
            return False
        if not (torch.is_grad_enabled() or will_be_repeated()):
            return False
        if self._step_began_s is None:
            self._step_began_s = self._clock()
        return self._pacer.records_now

    def _note_remark(self, line: str, is_asked_for: bool) -> None:  # noqa: FBT001  a callback
        """Keep in the run what is not recorded; say it where somebody has asked for it."""
        self._writer.add_event(self._step, "remark", text=line)
        if self.on_remark is not None:
            self.on_remark(line, is_asked_for)
        elif is_asked_for:
            warnings.warn(line, stacklevel=2)

    def _add_layer(self, layer: LayerInfo) -> None:
        if self._order.add(layer, self._writer.layers):
            self._writer.add_layer(layer)

    @property
    def _all_hooks(self) -> tuple[LayerHooks, ...]:
        """Those of models, and of models that are gone while parts of them may live."""
        return *self._hooks.values(), *(hooks for hooks, _ in self._orphans)

    def _let_go_of_model(self, key: int) -> None:
        """Keep nothing of a model that is gone but what was recorded of it."""
        functions, hooks = self._functions.pop(key, None), self._hooks.pop(key, None)
        if hooks is not None and functions is not None:
            self._orphans.append((hooks, functions))  # its parts may live: they are still alive just now
        self._facts.forget_model(key)

    def _let_go_of_optimizer(self, key: int) -> None:
        number = self._numbers.pop(key)
        del self._known[number]
        self._handles.pop(number, None)
        self._parameters.discard(number)
        self._facts.forget_optimizer(number)

    # What a driver says that gives its optimizers with ``hooked=False``

    def begin_update(
        self, optimizer: torch.optim.Optimizer, args: Sequence[object], kwargs: Mapping[str, object]
    ) -> None:
        """Measure what the optimizer is about to change; arguments are those of its step's pre-hook."""
        if (
            torch.compiler.is_compiling()
        ):  # in a compiled step, where the hooks are traced, nothing is measured
            return
        is_recorded = self._pacer.records_now
        if not (is_recorded or self._pacer.records_next):
            self._facts.count_update(self._numbers[id(optimizer)])
            return
        began_s = self._clock()
        has_closure = kwargs.get("closure", args[1] if len(args) > 1 else None) is not None
        index = self._numbers[id(optimizer)]
        self._facts.begin_update(index, optimizer, is_recorded=is_recorded, has_gradients=not has_closure)
        if is_recorded and index in self._parameters.watched:
            self._parameters.begin_update(index, optimizer, has_gradients=not has_closure)
        spent_s = self._clock() - began_s
        if is_recorded:
            self._parameters_s += spent_s
        else:
            self._ahead_s += spent_s

    def end_update(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Measure what the optimizer has changed."""
        index = self._numbers[id(optimizer)]
        if self._pacer.records_now and index in self._parameters.watched:
            began_s = self._clock()
            self._parameters.end_update(index, self._step)
            self._num_waiting += 1
            self._parameters_s += self._clock() - began_s

    def note_update(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        """Note facts about the update that an optimizer has made."""
        began_s = self._clock()
        index = self._numbers[id(optimizer)]
        self._facts.after_update(
            index, optimizer, f"optimizer{_suffix(index, 0)}", self._step, is_recorded=self._pacer.records_now
        )
        self._num_waiting += self._pacer.records_now and index not in self._parameters.watched  # else counted
        self._parameters_s += self._clock() - began_s

    def _after_optimizer_step(self, optimizer: torch.optim.Optimizer, *_: object) -> None:
        self.end_step()

    def note_losses(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the losses noted since the last time as this optimizer's, where several have losses of their own."""
        self._note_loss(LOSS + _suffix(self.number_of(optimizer), 0))

    def end_step(self) -> None:
        """End the open step: what was measured since the last one is its row."""
        began_s = self._clock()
        if self._pacer.records_now and self._step_began_s is not None and self._block.num_layers:
            self._note_rows()
        self._facts.end_step(self._step, is_recorded=self._pacer.records_now)
        self._note_rates()
        self._note_loss()
        measured_s = self._clock()
        if self._writer.is_flush_due:
            self._drain(waits=False)
            self._writer.flush()
        elif self._num_waiting >= MAX_WAITING:
            self._drain(waits=False)
        now_s = self._clock()
        # a step in which no forward was seen has lasted since the one before
        since_s = self._step_ended_s or began_s if self._step_began_s is None else self._step_began_s
        elapsed_s = now_s - since_s
        outcomes_s, self._outcomes_s = self._outcomes_s, 0.0
        self._loss_pacer.end_step(elapsed_s, outcomes_s)
        measuring_s = measured_s - began_s + self._take_hook_time()
        self._pacer.end_step(elapsed_s, measuring_s, now_s - measured_s + outcomes_s)
        self._step_began_s, self._step_ended_s = None, now_s
        self.has_forward = False
        self._left_out = []
        self._step += 1
        for hooks in tuple(self._hooks.values()):
            hooks.end_step()
        if self._orphans:
            self._end_step_of_orphans()

    def _end_step_of_orphans(self) -> None:
        orphans, self._orphans = self._orphans, []
        for hooks, functions in orphans:
            self._parameters_s += hooks.elapsed_s
            hooks.elapsed_s = 0.0
            hooks.end_step()
            if hooks.is_gone:
                self._has_seen_compiled = self._has_seen_compiled or hooks.has_seen_compiled
            else:
                self._orphans.append((hooks, functions))

    def _take_hook_time(self) -> float:
        total_s, self._parameters_s = self._parameters_s, 0.0
        if self._pacer.records_now:
            total_s, self._ahead_s = total_s + self._ahead_s, 0.0
        for hooks in tuple(self._hooks.values()):
            total_s += hooks.elapsed_s
            hooks.elapsed_s = 0.0
        return total_s

    def _note_rows(self) -> None:
        """Note the step's rows, now if they are on the host, else when they have come there."""
        if self._block.is_on_host:
            self._add_rows(self._step, *self._block.take(self._step))
        else:
            self._on_the_way.append((self._step, self._block.send(self._step)))
            self._receive_rows(most=MAX_ON_THE_WAY)

    def _receive_rows(self, most: int) -> None:
        """Store rows that have come to the host; wait for the oldest ones so long as more than ``most`` are on their way."""
        while self._on_the_way and (len(self._on_the_way) > most or self._on_the_way[0][1].has_arrived()):
            step, rows = self._on_the_way.popleft()
            self._add_rows(step, *rows.collect())

    def _add_rows(self, step: int, rows: Floats, hist: Counts, fired: Bytes) -> None:
        rows, hist, fired = self._order.apply(rows, hist, fired, self._writer.layers)
        self._writer.add_block(Bucket(step, step, 1, rows, hist, fired))

    def _note_rates(self) -> None:
        for optimizer_index, known in tuple(self._known.items()):
            optimizer = known()
            if optimizer is None:
                continue
            for group_index, group in enumerate(optimizer.param_groups):
                suffix = _suffix(optimizer_index, group_index)
                self._writer.add_scalar(f"lr{suffix}", self._step, float(group["lr"]))
                momentum = momentum_of(group)
                if momentum is not None:
                    self._writer.add_scalar(f"momentum{suffix}", self._step, momentum)

    def _note_loss(self, name: str = LOSS) -> None:
        """Note the mean loss of the step's micro-batches, now if it is on the host, else later with others."""
        losses, self._losses = self._losses, []
        scale = self._take_divisor(len(losses))
        on_device = [value for value in losses if isinstance(value, Tensor)]
        if on_device:
            mean = torch.stack([torch.as_tensor(value).to(on_device[0]) for value in losses]).mean() * scale
            self._waiting.add((name, self._step), mean)
            self._num_waiting += 1
        elif losses:
            if self._waiting:
                self._drain()  # scalars come in the order of steps
            self._writer.add_scalar(name, self._step, float(sum(losses) / len(losses) * scale))

    def _take_divisor(self, num_losses: int) -> float:
        """Return the number of micro-batches that all the step's losses were divided by, 1 where it is something else.

        The last step of an epoch may have fewer of them than the losses were divided by.
        """
        divisors, self._divisors = self._divisors, set()
        if len(divisors) != 1:
            return 1.0
        (divisor,) = divisors
        if divisor == num_losses:
            self._accumulates = divisor
        return divisor if divisor == self._accumulates and num_losses <= divisor else 1.0

    def _drain(self, *, waits: bool = True) -> None:
        """Store what waits on a device; without ``waits`` only what has come to the host by now."""
        self._receive_rows(0 if waits else MAX_ON_THE_WAY)
        for (name, step), (value,) in self._waiting.take(waits=waits):
            self._writer.add_scalar(name, step, float(value))
        self._parameters.drain(waits=waits)
        self._facts.drain(waits=waits)
        self._num_waiting = 0

    def _note_cost(self) -> None:
        self._writer.info = replace(self._writer.info, cost=self._pacer.cost())


class _ForwardFacts:
    """Tells the facts of a recording of its models' forwards."""

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    def enter(self, model: nn.Module, inputs: object, *, is_measured: bool) -> None:
        recording = self.recording
        if recording.is_paused:
            return
        is_validation = recording._phase not in (None, TRAIN)
        recording._facts.enter(
            model, inputs, recording._step, is_validation=is_validation, is_recorded=is_measured
        )

    def leave(self, model: nn.Module, output: object) -> None:
        self.recording._facts.leave(model, output, self.recording._step)


def _suffix(optimizer: int, group: int) -> str:
    """Return what tells a scalar of this optimizer and parameter group from those of the first."""
    return (f"@{optimizer}" if optimizer else "") + (f".{group}" if group else "")


def recordings_of(model: nn.Module) -> list[Recording]:
    """Return the recordings whose hooks are on the model now."""
    listeners = [hooks.listener for hooks in hooks_on(model)]
    return [listener.recording for listener in listeners if isinstance(listener, _ForwardFacts)]


def status_after(kind: type[BaseException] | None) -> str:
    """Return how a run ended that was left with an exception of this kind (None: without one)."""
    if kind is None:
        return "finished"
    return "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"


def check_unattached(model: nn.Module) -> None:
    """Raise UsageError when the model cannot be recorded."""
    if isinstance(model, nn.DataParallel) and makes_copies(model):
        raise UsageError(
            "DataParallel copies the model at each forward; record a DistributedDataParallel or plain model"
        )
