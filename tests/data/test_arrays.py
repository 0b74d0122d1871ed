from __future__ import annotations

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from actograph.data import Loaders, TensorLoader, idx_folder, npz_file, open_data
from actograph.data.idx import read_idx
from actograph.errors import UsageError

SIDE = 5
CODES = {"|u1": 0x08, ">u1": 0x08, "|i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def pixels(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def labels(n: int, classes: int = 3) -> NDArray[np.uint8]:
    return (np.arange(n) % classes).astype(np.uint8)


def idx_bytes(array: NDArray) -> bytes:
    big = array.astype(array.dtype.newbyteorder(">"))
    header = bytes([0, 0, CODES[big.dtype.str], array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    return header + big.tobytes()


def write_mnist(folder: Path, *, dot: str = "-", packed: bool = False, test: bool = True) -> Path:
    folder.mkdir(exist_ok=True)
    counts = {"train": 12} | ({"t10k": 6} if test else {})
    for seed, (name, n) in enumerate(counts.items()):
        arrays = {
            f"{name}-images{dot}idx3-ubyte": pixels(n, SIDE, SIDE, seed=seed),
            f"{name}-labels{dot}idx1-ubyte": labels(n),
        }
        for file, array in arrays.items():
            data = idx_bytes(array)
            (folder / (file + ".gz" * packed)).write_bytes(gzip.compress(data) if packed else data)
    return folder


def part(loaded: Loaders, name: str) -> TensorLoader:
    found = {"train": loaded.train, "valid": loaded.valid}[name]
    assert isinstance(found, TensorLoader)
    return found


def shown(loaded: Loaders, name: str) -> NDArray:
    """Undo the normalisation: (samples, channels, height, width)."""
    assert loaded.normalization is not None
    mean, std, white = loaded.normalization.mean, loaded.normalization.std, loaded.normalization.white
    x = part(loaded, name).x.double()
    return ((x * torch.tensor(std).view(-1, 1, 1) + torch.tensor(mean).view(-1, 1, 1)) * white).numpy()


@pytest.mark.parametrize("dtype", ["u1", "i1", ">i2", ">i4", ">f4", ">f8"])
@pytest.mark.parametrize("packed", [True, False])
def test_an_idx_file_reads_back_what_was_written(tmp_path: Path, dtype: str, packed: bool) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    data = idx_bytes(array)
    (tmp_path / "file").write_bytes(gzip.compress(data) if packed else data)
    np.testing.assert_array_equal(read_idx(tmp_path / "file"), array)


@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("packed", [True, False])
def test_the_four_files_of_mnist_are_its_training_and_validation_part(
    tmp_path: Path, dot: str, packed: bool
) -> None:
    folder = write_mnist(tmp_path / "mnist", dot=dot, packed=packed)
    for path in (folder, next(folder.glob("t10k-labels*"))):
        loaded = open_data(path, batch_size=4, seed=1)
        np.testing.assert_allclose(shown(loaded, "train")[:, 0], pixels(12, SIDE, SIDE, seed=0), atol=1e-4)
        np.testing.assert_allclose(shown(loaded, "valid")[:, 0], pixels(6, SIDE, SIDE, seed=1), atol=1e-4)
        assert part(loaded, "train").y.tolist() == labels(12).tolist()
        assert (loaded.class_names, loaded.input_size) == (("0", "1", "2"), (1, SIDE, SIDE))
        assert part(loaded, "train").shuffle
        assert not part(loaded, "valid").shuffle


def test_without_test_files_a_fifth_of_each_class_validates(tmp_path: Path) -> None:
    loaded = idx_folder(write_mnist(tmp_path / "mnist", test=False))
    assert part(loaded, "valid").y.bincount().tolist() == [1, 1, 1]
    assert part(loaded, "train").y.bincount().tolist() == [3, 3, 3]
    joined = np.concatenate([shown(loaded, "train"), shown(loaded, "valid")])[:, 0].round()
    assert sorted(map(tuple, joined.reshape(12, -1))) == sorted(
        map(tuple, pixels(12, SIDE, SIDE).reshape(12, -1))
    )


TRAIN = "train-images-idx3-ubyte"


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


SPOILERS: list[tuple[Callable[[Path], object], str]] = [
    (rewrite(TRAIN, lambda data: data[:-1]), f"{TRAIN} is truncated: it has 315 bytes, but 316 are needed"),
    (rewrite(TRAIN, lambda data: data + b"\0"), f"{TRAIN} is damaged: it has 317 bytes"),
    (rewrite(TRAIN, lambda data: data[:6]), f"{TRAIN} is truncated: it ends after 6 bytes, in its header"),
    (rewrite(TRAIN, lambda _: b""), f"{TRAIN} is truncated: it ends after 0 bytes"),
    (rewrite(TRAIN, lambda data: b"\1" + data[1:]), f"{TRAIN} is no IDX file: it begins with 01 00 08 03"),
    (rewrite(TRAIN, lambda data: data[:2] + b"\7" + data[3:]), "begins with 00 00 07 03, not with 00 00 08"),
    (rewrite(TRAIN, lambda data: data[:4] + b"\xff" * 4 + data[8:]), f"{TRAIN} is damaged"),
    (rewrite(TRAIN, lambda data: gzip.compress(data)[:-30]), f"{TRAIN} is truncated: its compressed data"),
    (rewrite(TRAIN, lambda data: b"\x1f\x8b" + data), f"{TRAIN} cannot be read"),
    (
        rewrite("train-labels-idx1-ubyte", lambda _: idx_bytes(labels(11))),
        f"{TRAIN} .* has 12 images, but 11 labels",
    ),
    (rewrite(TRAIN, lambda _: idx_bytes(labels(12))), r"has shape \(12,\); give images \(n, height, width\)"),
    (
        rewrite("t10k-images-idx3-ubyte", lambda _: idx_bytes(pixels(6, 4, 4))),
        r"t10k.* of shape \(1, 4, 4\), but",
    ),
    (
        rewrite("t10k-labels-idx1-ubyte", lambda _: idx_bytes(labels(6, 5))),
        "t10k.* has the label 3, which train",
    ),
    (lambda folder: (folder / TRAIN).unlink(), f"has no {TRAIN} .or .gz.; add the file"),
    (lambda folder: (folder / "t10k-labels-idx1-ubyte").unlink(), "has no t10k-labels-idx1-ubyte"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILERS)
def test_idx_files_that_cannot_be_used_are_named(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    folder = write_mnist(tmp_path / "mnist")
    spoil(folder)
    with pytest.raises(UsageError, match=message) as caught:
        open_data(folder)
    assert "\n" not in str(caught.value)


def save(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def test_the_layout_of_keras_mnist_is_read(tmp_path: Path) -> None:
    x, y = pixels(9, 6, 7), labels(9).astype(np.int64)
    x_test, y_test = pixels(3, 6, 7, seed=1), labels(3).astype(np.int64)
    loaded = open_data(save(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x_test, y_test=y_test))
    assert loaded.input_size == (1, 6, 7)
    np.testing.assert_allclose(shown(loaded, "train")[:, 0], x, atol=1e-4)
    np.testing.assert_allclose(shown(loaded, "valid")[:, 0], x_test, atol=1e-4)
    assert part(loaded, "valid").y.tolist() == [0, 1, 2]


@pytest.mark.parametrize("layout", [(6, 7, 3), (3, 6, 7), (6, 7, 1), (2, 6, 7)])
def test_channels_may_come_first_or_last(tmp_path: Path, layout: tuple[int, ...]) -> None:
    x = pixels(10, *layout)
    loaded = npz_file(
        save(tmp_path / "a.npz", x_train=x, y_train=labels(10, 2), x_valid=x, y_valid=labels(10, 2))
    )
    expected = x if layout[0] < 6 else x.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(shown(loaded, "train"), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_other_numbers_than_bytes_are_normalised_from_the_training_part(tmp_path: Path, dtype: type) -> None:
    x: NDArray = (np.random.default_rng(0).normal(7, 30, (8, 4, 4)) * 10).astype(dtype)
    test: NDArray = (x[:4] * 2).astype(dtype)
    loaded = npz_file(save(tmp_path / "a.npz", x_train=x, y_train=labels(8), x_test=test, y_test=labels(4)))
    train = x.astype(np.float64)
    assert loaded.normalization is not None
    assert loaded.normalization.white == 1
    np.testing.assert_allclose(loaded.normalization.mean, train.mean(), rtol=1e-6)
    np.testing.assert_allclose(loaded.normalization.std, train.std(), rtol=1e-6)
    expected = (test.astype(np.float64) - train.mean()) / train.std()
    np.testing.assert_allclose(part(loaded, "valid").x[:, 0].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("y", "names"),
    [
        (np.array(["cat", "ant", "cat", "ant", "bee", "bee"]), ("ant", "bee", "cat")),
        (np.array([b"cat", b"ant", b"cat", b"ant", b"bee", b"bee"]), ("ant", "bee", "cat")),
        (np.array([10, -2, 10, -2, 9, 9]), ("-2", "9", "10")),
        (np.array([[5], [3], [5], [3], [4], [4]]), ("3", "4", "5")),
    ],
)
def test_labels_are_sorted_into_classes(tmp_path: Path, y: NDArray, names: tuple[str, ...]) -> None:
    loaded = npz_file(
        save(tmp_path / "a.npz", x_train=pixels(6, 4, 4), y_train=y, x_test=pixels(6, 4, 4), y_test=y)
    )
    assert loaded.class_names == names
    assert part(loaded, "train").y.tolist() == [2, 0, 2, 0, 1, 1]


def test_x_and_y_alone_are_split_with_the_seed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=pixels(40, 4, 4), y=labels(40, 2))
    one, again, other = (npz_file(path, seed=seed) for seed in (1, 1, 2))
    assert part(one, "valid").y.bincount().tolist() == [4, 4]
    assert torch.equal(part(one, "valid").x, part(again, "valid").x)
    assert not torch.equal(part(one, "valid").x, part(other, "valid").x)


def test_a_transform_is_applied_to_training_batches_only(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=pixels(40, 4, 4), y=labels(40, 2))
    loaded = open_data(path, transform=lambda x, _: x * 0)
    assert all(not x.any() for x, _ in loaded.train)
    assert all(x.any() for x, _ in part(loaded, "valid"))


IMAGES, TWO = pixels(8, 4, 4), labels(8, 2)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": IMAGES, "y": TWO}, "has no arrays x and y, nor x_train and y_train; it has images, y"),
        ({}, "it has nothing"),
        ({"x": IMAGES, "y": TWO[:5]}, "a.npz, x has 8 images, but 5 labels"),
        ({"x": IMAGES.reshape(8, 16), "y": TWO}, r"x has shape \(8, 16\); give images \(n, height, width\)"),
        ({"x": pixels(8, 3, 4, 3), "y": TWO}, r"x has shape \(8, 3, 4, 3\); give images"),
        ({"x": pixels(8, 9, 9, 9), "y": TWO}, "with at most 4 channels"),
        ({"x": IMAGES[:0], "y": TWO[:0]}, r"x has shape \(0, 4, 4\); give at least one image"),
        ({"x": IMAGES.astype(str), "y": TWO}, "x holds <U3; give images of numbers"),
        ({"x": IMAGES, "y": TWO * 0}, "x has one class only, 0; give at least two"),
        (
            {"x": IMAGES, "y": TWO / 2},
            "labels of shape .8,. and type float64; give one whole number or string",
        ),
        ({"x": 3, "y": 4}, r"x has shape \(\); give images"),
        ({"x": IMAGES, "y": 4}, r"labels of shape \(\)"),
        (
            {"x_train": IMAGES, "y_train": TWO, "x_test": IMAGES, "y_test": TWO.astype(str)},
            "x_test has labels of type <U3, but train uint8; give both alike",
        ),
        ({"x": IMAGES, "y": np.eye(8, dtype=int)}, r"labels of shape \(8, 8\)"),
        ({"x": IMAGES, "y": np.arange(8) // 7}, "class '1' has 1 image, too few to split"),
        ({"x": IMAGES * 0, "y": TWO}, "one flat colour"),
        (
            {"x_train": IMAGES, "y_train": TWO, "x_test": IMAGES / 255, "y_test": TWO},
            "x_test holds torch.float32 images .*, but .*x_train torch.uint8",
        ),
        (
            {"x": IMAGES, "y": TWO.astype(object)},
            "cannot be read .*; write it again with numpy.savez, without Py",
        ),
    ],
)
def test_arrays_that_cannot_be_used_are_named(
    tmp_path: Path, arrays: dict[str, object], message: str
) -> None:
    path = save(tmp_path / "a.npz", **arrays)
    with pytest.raises(UsageError, match=message) as caught:
        open_data(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("bad", "name"), [("x_train", "training"), ("x_test", "validation")])
def test_values_that_are_not_finite_are_named_with_their_part(tmp_path: Path, bad: str, name: str) -> None:
    arrays: dict[str, NDArray] = {
        "x_train": IMAGES / 255,
        "y_train": TWO,
        "x_test": IMAGES / 255,
        "y_test": TWO,
    }
    arrays[bad][2, 1, 3] = np.inf
    with pytest.raises(
        UsageError, match=rf"{name} images: 0 NaN and 1 infinite values of 128, .* at \[2, 0, 1, 3\]"
    ):
        open_data(save(tmp_path / "a.npz", **arrays))


def test_more_than_the_memory_limit_is_refused_before_it_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actograph.data.checks.MAX_BYTES", 500)
    with pytest.raises(UsageError, match=r"8 images of 1 x 4 x 4 need 0\.0 GiB"):
        npz_file(save(tmp_path / "a.npz", x=IMAGES, y=TWO))


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 28}, "size is 28, but .* has images of 4 x 4 pixels"), ({"seed": -1}, "seed is -1"),
     ({"batch_size": 0}, "batch_size is 0")],
)  # fmt: skip
def test_a_setting_that_cannot_be_used_is_refused(
    tmp_path: Path, options: dict[str, int], message: str
) -> None:
    path = save(tmp_path / "a.npz", x=IMAGES, y=TWO)
    assert npz_file(path, size=4).input_size == (1, 4, 4)
    with pytest.raises(UsageError, match=message):
        open_data(path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 broken", None])
def test_a_file_that_is_no_npz_is_named(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.npz"
    if content is None:
        np.save(tmp_path / "a.npy", IMAGES)
        content = (tmp_path / "a.npy").read_bytes()
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"a\.npz (cannot be read|is a single array)"):
        open_data(path)


def test_a_damaged_npz_is_named(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npz", x=pixels(50, 9, 9), y=labels(50))
    data = bytearray(path.read_bytes())
    data[1000] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(UsageError, match=r"a\.npz cannot be read \(Bad CRC-32"):
        open_data(path)
