"""Outputs over a whole loader, and the samples that were hardest.

No idea of fits or callbacks: nothing is fired, nothing is recorded, and the model's training flags are put back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from actograph.errors import UsageError
from actograph.train.batches import batches
from actograph.train.device import map_tensors
from actograph.train.loop import kept_training_flags
from actograph.train.state import Batch, Phase, Progress
from actograph.train.step import LossFunction, TrainStep


@dataclass(frozen=True)
class TopLosses:
    """The samples with the largest losses, the largest first, all on the host.

    ``indices`` (n,) count the samples in the loader's order, ``losses`` (n,) are of each sample on its own, ``predictions``
    (n, ...) the outputs and ``targets`` (n, ...) what they should have been.
    """

    indices: Tensor
    losses: Tensor
    predictions: Any
    targets: Any


def predict_loader(
    model: nn.Module, step: TrainStep, loader: Iterable[Any], device: torch.device
) -> tuple[Any, Any]:
    """Return outputs and targets of all batches, joined along the first axis and on the host.

    Raises UsageError for a loader that gives no batch, or no pairs.
    """
    pairs = [(_on_host(batch.pred), _on_host(batch.y)) for batch in _predicted(model, step, loader, device)]
    return join([pred for pred, _ in pairs]), join([y for _, y in pairs])


def top_losses(
    model: nn.Module,
    step: TrainStep,
    loss_func: LossFunction,
    loader: Iterable[Any],
    device: torch.device,
    num_samples: int,
) -> TopLosses:
    """Return the ``num_samples`` samples of the loader with the largest losses, or all where there are fewer.

    Each loss is that of a batch of one, so that any loss function will do; class weights cancel in one that averages.
    """
    if num_samples < 1:
        raise UsageError(f"top_losses needs a number of samples of at least 1, not {num_samples}")
    losses, preds, targets = [], [], []
    for batch in _predicted(model, step, loader, device):
        losses += [loss_func(*_sample((batch.pred, batch.y), index)).detach() for index in range(batch.size)]
        preds.append(_on_host(batch.pred))
        targets.append(_on_host(batch.y))
    largest = torch.stack(losses).cpu().topk(min(num_samples, len(losses)))
    chosen = largest.indices
    pick = [map_tensors(lambda tensor: tensor[chosen], join(parts)) for parts in (preds, targets)]
    return TopLosses(chosen, largest.values, *pick)


def join(parts: list[Any]) -> Any:
    """Join the outputs of batches along the first axis, inside tuples, lists and dicts too.

    >>> join([{"a": torch.zeros(2, 3)}, {"a": torch.zeros(1, 3)}])["a"].shape
    torch.Size([3, 3])
    """
    first = parts[0]
    if isinstance(first, Tensor):
        return torch.cat(parts) if first.ndim else torch.stack(parts)
    if isinstance(first, Mapping):
        return {key: join([part[key] for part in parts]) for key in first}
    if isinstance(first, (tuple, list)):
        return tuple(join(list(column)) for column in zip(*parts, strict=True))
    return parts


def _predicted(
    model: nn.Module, step: TrainStep, loader: Iterable[Any], device: torch.device
) -> Iterator[Batch]:
    with kept_training_flags(model), torch.no_grad():
        model.eval()
        for batch in batches(loader, device, Progress(phase=Phase.VALID), None):
            batch.pred = step.forward(batch)
            yield batch


def _sample(value: Any, index: int) -> Any:
    return map_tensors(lambda tensor: tensor[index : index + 1], value)


def _on_host(value: Any) -> Any:
    return map_tensors(Tensor.cpu, value)
