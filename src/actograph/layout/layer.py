"""What is known of a layer besides its numbers: name, class, units, and where its nonlinearity is flat.

No idea of modules: whoever looks at a module fills these in.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

FLAT_SLOPE = 0.05  # |f'(x)| below this is flat: a gradient through it keeps less than a twentieth


class Quantity(enum.StrEnum):
    """What of a layer a row describes."""

    ACTIVATION = "activation"  # its output
    GRADIENT = "gradient"  # of the loss, by its output


class Side(enum.StrEnum):
    """Where a flat region is looked for."""

    OUTPUT = "output"  # f is monotone, so the output tells
    INPUT = "input"  # f is not monotone (GELU, SiLU, Mish): only the input tells


class Nonlinearity(enum.StrEnum):
    """What being in the flat region means for a unit."""

    RECTIFIER = "rectifier"  # exactly no gradient on one side: a unit that stays there is dead (ReLU, ReLU6)
    SOFT_RECTIFIER = (
        "soft rectifier"  # GELU, SiLU, Mish, softplus: a tail without gradient, but not to be trapped in
    )
    SATURATING = "saturating"  # flat at both ends: sigmoid, tanh, hardtanh, softsign
    LOW_SLOPE = "low slope"  # LeakyReLU and ELU tails: small gradient, never dead


@dataclass(frozen=True)
class FlatRegion:
    """Values v with low <= v <= high, on one side of a nonlinearity, where its slope is below `FLAT_SLOPE`.

    ``intervals`` holds one or two (low, high) pairs in ascending order; ``-inf`` and ``inf`` are allowed.
    """

    nonlinearity: Nonlinearity
    side: Side
    intervals: tuple[tuple[float, float], ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain data; infinities become strings."""
        pairs = [[str(low), str(high)] for low, high in self.intervals]
        return {"nonlinearity": self.nonlinearity.value, "side": self.side.value, "intervals": pairs}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FlatRegion:
        """Undo `to_json`."""
        pairs = tuple((float(low), float(high)) for low, high in data["intervals"])
        return cls(Nonlinearity(data["nonlinearity"]), Side(data["side"]), pairs)


@dataclass(frozen=True)
class LayerInfo:
    """One recorded tensor: a leaf module's output at one call index, or the loss's gradient by it.

    ``name`` is the qualified module name, with ``[k]`` for the k-th further call in one forward (``[4+]`` holds all
    calls beyond four) and ``:path`` for a member of a nested output. ``shape`` is that of the first output seen, batch
    axis included. ``num_units`` is its length along ``channel_axis`` (0 and None when there is no such axis).
    """

    name: str
    kind: str  # the module's class, "Conv2d", or "functional relu"
    shape: tuple[int, ...]
    dtype: str  # "float32"
    channel_axis: int | None
    num_units: int
    flat: FlatRegion | None = None
    num_parameters: int = 0
    quantity: Quantity = Quantity.ACTIVATION

    @property
    def num_flags(self) -> int:
        """Units of which firing is recorded: all of them where there is a flat region not to fire in, else none."""
        return self.num_units if self.flat is not None else 0

    def to_json(self) -> dict[str, Any]:
        """Return plain data for storage."""
        data: dict[str, Any] = {
            "name": self.name,
            "kind": self.kind,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "channel_axis": self.channel_axis,
            "num_units": self.num_units,
            "num_parameters": self.num_parameters,
            "quantity": self.quantity.value,
        }
        if self.flat is not None:
            data["flat"] = self.flat.to_json()
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> LayerInfo:
        """Undo `to_json`; runs of before there were gradients hold activations."""
        flat = data.get("flat")
        return cls(
            name=data["name"],
            kind=data["kind"],
            shape=tuple(data["shape"]),
            dtype=data["dtype"],
            channel_axis=data["channel_axis"],
            num_units=data["num_units"],
            num_parameters=data["num_parameters"],
            flat=None if flat is None else FlatRegion.from_json(flat),
            quantity=Quantity(data.get("quantity", Quantity.ACTIVATION)),
        )
