"""`SampleSet`: some samples of a data set, known by their fingerprints, always the same ones however often they come.

No idea of training. A fingerprint is exact: samples with the same values have the same, in whatever batch they come.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MAX_SAMPLES = (
    4096  # fingerprints that are kept: the smallest, as in Bar-Yossef et al. 2002 (k minimum values)
)
MAX_VALUES = 256  # of a sample, spread over it, that its fingerprint is made of
BITS = 52  # of a fingerprint: a float64 holds it exactly
GOLDEN = 0x9E3779B97F4A7C15 - (
    1 << 64
)  # 2^64 over the golden ratio, as a signed number (Knuth, volume 3, section 6.4)


@torch.no_grad()
def fingerprints(samples: Tensor) -> Tensor:
    """Return a number below 2^52 for each sample: (N, ...) -> (N,) int64; whole-number arithmetic, hence exact."""
    flat = samples.detach().reshape(len(samples), -1)
    stride = max(flat.shape[1] // MAX_VALUES, 1)
    bits = flat[:, ::stride][:, :MAX_VALUES].to(torch.float32).contiguous().view(torch.int32).to(torch.int64)
    places = torch.arange(1, bits.shape[1] + 1, dtype=torch.int64, device=bits.device)
    mixed = (bits + places) * GOLDEN
    mixed = (mixed ^ (mixed >> 29)) * (2 * places + 1)
    total = mixed.sum(dim=1) * GOLDEN
    return (total ^ (total >> 31)) & ((1 << BITS) - 1)


class SampleSet:
    """Of all samples those with the smallest fingerprints."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self.limit = 1 << BITS  # fingerprints below it are all kept

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, sample: int) -> bool:
        return sample in self._known

    def add(self, samples: NDArray[np.float64]) -> int:
        """Take samples in; return how many of those that are kept were known already."""
        kept = [int(sample) for sample in samples.tolist() if sample < self.limit]
        num_known = sum(sample in self._known for sample in kept)
        self._known.update(kept)
        if len(self._known) > 2 * MAX_SAMPLES:
            ordered = sorted(self._known)
            self.limit = ordered[MAX_SAMPLES]
            self._known = set(ordered[:MAX_SAMPLES])
        return num_known

    def share_in(self, other: SampleSet) -> tuple[float, int]:
        """Return the share of these samples that are in the other set as well, and of how many that is the share."""
        limit = min(self.limit, other.limit)
        comparable = [sample for sample in self._known if sample < limit]
        if not comparable:
            return 0.0, 0
        return sum(sample in other for sample in comparable) / len(comparable), len(comparable)
