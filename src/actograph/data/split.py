"""Split samples into a training and a validation part, class by class.

No idea of the samples: it sees labels only.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def split_stratified(labels: Tensor, valid_per_class: Sequence[int], seed: int) -> tuple[Tensor, Tensor]:
    """Return the indices of (train, valid): of each class ``c``, ``valid_per_class[c]`` at random for valid.

    Both are sorted, so that a part's order says nothing about the draw. The draw is numpy's ``RandomState``,
    the one generator whose numbers are promised never to change (NEP 19): accuracies stay comparable.

    >>> split_stratified(torch.tensor([0, 0, 1, 1]), [1, 1], seed=0)
    (tensor([0, 3]), tensor([1, 2]))
    """
    random = np.random.RandomState(np.random.MT19937(np.random.SeedSequence(seed)))
    train, valid = [], []
    for label, size in enumerate(valid_per_class):
        members = (labels == label).nonzero().flatten()
        members = members[torch.from_numpy(random.permutation(len(members)))]
        valid.append(members[:size])
        train.append(members[size:])
    return torch.cat(train).sort().values, torch.cat(valid).sort().values
