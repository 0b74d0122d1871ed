"""Where a loader stands, and how one like it gets there again; and the random states this depends on.

No idea of files or of the loop. A loader with a state of its own (`TensorLoader`, torchdata's StatefulDataLoader) is asked
for it; a plain DataLoader or a list is begun again from the random state its epoch began with, and read up to the place.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from actograph.data.loaders import TensorLoader
from actograph.errors import UsageError
from actograph.train.batches import length

State: TypeAlias = dict[str, Any]  # nested dicts, lists and tuples of tensors, numbers, strings and None
SAMPLERS = (RandomSampler, SubsetRandomSampler, WeightedRandomSampler)


@runtime_checkable
class Stateful(Protocol):
    """What can be saved and taken up again."""

    def state_dict(self) -> Mapping[str, Any]:
        """Return nested dicts, lists and tuples of tensors, numbers, strings and None."""

    def load_state_dict(self, state: Any, /) -> Any:
        """Go on from what `state_dict` returned."""


@dataclass(frozen=True)
class LoaderStart:
    """The random states with which a loader's epoch began; empty for one that has a state of its own."""

    random: State | None = None
    generators: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, loader: Iterable[Any]) -> LoaderStart:
        """Return the states as they are now."""
        if isinstance(loader, Stateful):
            return cls()
        return cls(random_state(), [generator.get_state() for generator in generators(loader)])


def random_state() -> State:
    """Return the states of Python's, numpy's and torch's random numbers, those of CUDA devices in use included."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": (version, words, gauss),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],  # type: ignore[no-untyped-call]
    }


def set_random_state(state: State) -> None:
    """Put back what `random_state` returned."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    for device, cuda in enumerate(state["cuda"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(cuda, device)


def loader_state(loader: Iterable[Any]) -> State:
    """Return what the loader's later batches depend on, beside the global random state, which stays as it is."""
    if not isinstance(loader, Stateful):
        return {"generators": [generator.get_state() for generator in generators(loader)]}
    before = random_state()
    state = dict(loader.state_dict())
    set_random_state(before)  # torchdata's begins an epoch in order to answer
    return {"state": state}


def check_loader_state(loader: Iterable[Any], state: State) -> None:
    """Raise UsageError where `loader_state` was asked of another kind of loader, or of one with other batches."""
    if isinstance(loader, Stateful) != ("state" in state):
        raise UsageError(
            f"the checkpoint was saved with another kind of loader than {type(loader).__name__}: give one of the same kind"
        )
    if isinstance(loader, TensorLoader):
        copy.copy(loader).load_state_dict(state["state"])
    there, before = len(generators(loader)), len(state.get("generators", ()))
    if not isinstance(loader, Stateful) and there != before:
        raise UsageError(
            f"the loader has {there} random generators of its own, but had {before} when the checkpoint was saved: "
            "make it as it was"
        )


def is_left(loader: Iterable[Any], *, is_open: bool) -> bool:
    """Tell whether a loader with a state stands in an epoch that was left before its end, whoever read it.

    A `TensorLoader` knows; of others ``is_open`` says whether the loop left it there.
    """
    if isinstance(loader, TensorLoader):
        return bool(loader.epoch != loader_state(loader)["state"]["epoch"])
    return is_open and isinstance(loader, Stateful)


def set_loader_state(loader: Iterable[Any], state: State) -> None:
    """Put back what `loader_state` returned, which `check_loader_state` has seen."""
    if isinstance(loader, Stateful):
        loader.load_state_dict(state["state"])
    else:
        set_generators(loader, state["generators"])


def replayed(loader: Iterable[Any], start: LoaderStart, num_done: int) -> Iterator[Any]:
    """Begin the loader's epoch again as it began, and return what follows after ``num_done`` batches."""
    if start.random is not None:
        set_random_state(start.random)
    set_generators(loader, start.generators)
    items = iter(loader)
    for _ in islice(items, num_done):
        pass
    return items


def check_replayable(loader: Iterable[Any]) -> None:
    """Raise UsageError for a train loader that cannot be brought to the middle of an epoch again."""
    name = type(loader).__name__
    if isinstance(loader, Stateful):
        return
    if isinstance(loader, Iterator) or length(loader) is None:
        what = "can be read only once" if isinstance(loader, Iterator) else "has no length"
        raise UsageError(
            f"the train loader {name} {what}, so that a fit cannot go on in it: give a TensorLoader, a DataLoader over a "
            "dataset with a length, or a loader with state_dict() and load_state_dict()"
        )
    if isinstance(loader, DataLoader) and loader.persistent_workers:
        raise UsageError(
            "the workers of the train loader go on from epoch to epoch with random states that cannot be saved: "
            "give persistent_workers=False, or a loader with state_dict()"
        )


def generators(loader: Iterable[Any]) -> list[torch.Generator]:
    """Return the generators that a DataLoader or its sampler was given."""
    if not isinstance(loader, DataLoader):
        return []
    inner = getattr(loader.batch_sampler, "sampler", None)  # a batch sampler of the user's may have none
    owners = [sampler.generator for sampler in (loader.sampler, inner) if isinstance(sampler, SAMPLERS)]
    found = {id(generator): generator for generator in (loader.generator, *owners) if generator is not None}
    return list(found.values())


def set_generators(loader: Iterable[Any], states: list[Tensor]) -> None:
    """Put the states of `generators` back."""
    for generator, state in zip(generators(loader), states, strict=True):
        generator.set_state(state)
