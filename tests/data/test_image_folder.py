from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from actograph.data import Loaders, TensorLoader, image_folder, open_data
from actograph.errors import UsageError

SIDE = 6


def pixels(seed: int, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save(path: Path, seed: int, mode: str = "L", side: int = SIDE) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (side, side) if mode == "L" else (side, side, len(mode))
    Image.fromarray(pixels(seed, *shape), mode=None).convert(mode).save(path)


def fill(folder: Path, counts: dict[str, int], *, suffix: str = "png", mode: str = "L") -> Path:
    for number, (name, count) in enumerate(counts.items()):
        for index in range(count):
            save(folder / name / f"{index}.{suffix}", 100 * number + index, mode)
    return folder


def part(loaded: Loaders, name: str) -> TensorLoader:
    found = {"train": loaded.train, "valid": loaded.valid}[name]
    assert isinstance(found, TensorLoader)
    return found


def counts(loaded: Loaders, name: str) -> list[int]:
    return [int(n) for n in part(loaded, name).y.bincount(minlength=loaded.num_classes or 0)]


def test_train_and_valid_folders_are_taken_as_they_are(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"cat": 3, "ant": 4})
    fill(tmp_path / "valid", {"cat": 2})
    loaded = image_folder(tmp_path)
    assert loaded.class_names == ("ant", "cat")
    assert (counts(loaded, "train"), counts(loaded, "valid")) == ([4, 3], [0, 2])
    assert loaded.input_size == (1, SIDE, SIDE)


def test_values_are_the_images_normalised_by_the_training_part(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 3, "b": 3}, mode="RGB")
    fill(tmp_path / "val", {"a": 1, "b": 1}, mode="RGB")
    loaded = image_folder(tmp_path)
    train = np.stack([pixels(seed, SIDE, SIDE, 3) for seed in (0, 1, 2, 100, 101, 102)]) / 255
    mean, std = train.mean((0, 1, 2)), train.std((0, 1, 2))
    expected = ((train - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(part(loaded, "train").x.numpy(), expected, atol=1e-5)
    valid = (pixels(100, SIDE, SIDE, 3) / 255 - mean) / std
    np.testing.assert_allclose(part(loaded, "valid").x[1].numpy(), valid.transpose(2, 0, 1), atol=1e-5)
    assert loaded.normalization is not None
    np.testing.assert_allclose(loaded.normalization.std, std, rtol=1e-12)


@pytest.mark.parametrize("under_train", [True, False])
def test_one_folder_is_split_class_by_class_with_the_seed(tmp_path: Path, under_train: bool) -> None:
    fill(tmp_path / "train" if under_train else tmp_path, {"a": 10, "b": 5, "c": 2})
    loaded = image_folder(tmp_path, seed=1)
    assert (counts(loaded, "train"), counts(loaded, "valid")) == ([8, 4, 1], [2, 1, 1])
    again, other = image_folder(tmp_path, seed=1), image_folder(tmp_path, seed=2)
    assert torch.equal(part(loaded, "valid").x, part(again, "valid").x)
    assert not torch.equal(part(loaded, "valid").x, part(other, "valid").x)


def test_a_class_called_train_is_a_class(tmp_path: Path) -> None:
    assert image_folder(fill(tmp_path, {"train": 3, "bus": 3})).class_names == ("bus", "train")


def test_files_that_are_no_images_and_hidden_folders_are_ignored(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    for stray in (".DS_Store", "a/Thumbs.db", "a/notes.txt", "b/._0.png", ".git/config", "__MACOSX/a/0.png"):
        (tmp_path / stray).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / stray).write_text("no image")
    loaded = image_folder(tmp_path)
    assert sum(counts(loaded, "train") + counts(loaded, "valid")) == 6


def test_colour_files_that_show_grey_give_one_channel(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    Image.fromarray(pixels(9, SIDE, SIDE)).convert("RGB").save(tmp_path / "a" / "grey.jpeg")
    assert image_folder(tmp_path).input_size == (1, SIDE, SIDE)


def test_one_colour_image_makes_all_of_them_rgb(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    save(tmp_path / "a" / "colour.JPG", 7, "RGB")
    loaded = image_folder(tmp_path)
    assert loaded.input_size == (3, SIDE, SIDE)
    assert loaded.normalization is not None
    assert len(loaded.normalization.mean) == 3


def test_images_are_resized_to_the_size_asked_for(tmp_path: Path) -> None:
    assert image_folder(fill(tmp_path, {"a": 2, "b": 2}), size=4).input_size == (1, 4, 4)


def test_the_default_size_is_the_median_of_the_shorter_sides_and_at_most_64(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "b": 2})
    save(tmp_path / "a" / "large.png", 1, side=90)
    assert image_folder(tmp_path).input_size == (1, SIDE, SIDE)
    for index in range(6):
        save(tmp_path / "b" / f"large{index}.png", 1, side=90)
    assert image_folder(tmp_path).input_size == (1, 64, 64)


def first_pixel(folder: Path, write: Callable[[Path], None]) -> float:
    """Return the top left value (0..255) of an image that ``write`` puts into a folder of grey ones."""
    fill(folder, {"b": 2})
    (folder / "a").mkdir()
    for name in ("0.png", "1.png"):
        write(folder / "a" / name)
    loaded = image_folder(folder, valid_share=0.5)
    assert loaded.normalization is not None
    x = part(loaded, "train").x[0, 0, 0, 0]
    return float((x * loaded.normalization.std[0] + loaded.normalization.mean[0]) * 255)


def test_sixteen_bit_grey_is_scaled_not_cut_off(tmp_path: Path) -> None:
    deep = np.full((SIDE, SIDE), 0x8080, dtype=np.uint16)
    assert first_pixel(tmp_path, lambda path: Image.fromarray(deep).save(path)) == pytest.approx(128, abs=0.1)


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    clear = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    assert first_pixel(tmp_path, clear.save) == pytest.approx(255, abs=0.1)


def test_a_photo_is_turned_upright(tmp_path: Path) -> None:
    image = Image.fromarray(np.tile(np.arange(SIDE, dtype=np.uint8) * 40, (SIDE, 1)))
    exif = image.getexif()
    exif[0x0112] = 3  # rotated by 180 degrees
    assert first_pixel(tmp_path, lambda path: image.save(path, exif=exif)) == pytest.approx(200, abs=0.1)


def remove_all(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()


def remove_class(folder: Path) -> None:
    remove_all(folder)
    folder.rmdir()


def keep_one(folder: Path) -> None:
    remove_all(folder)
    save(folder / "0.png", 1)


def cut_short(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:40])


SPOILERS: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: remove_all(path / "a"), r"class folder .*a is empty: no PNG or JPEG directly in it"),
    (lambda path: (path / "a" / "1.png").write_text("text"), r"image .*1\.png cannot be read \(not a PNG"),
    (lambda path: cut_short(path / "a" / "1.png"), r"image .*1\.png cannot be read \("),
    (lambda path: (path / "a" / "1.png").write_bytes(b""), r"image .*1\.png cannot be read \("),
    (lambda path: keep_one(path / "b"), "class 'b' has 1 image, too few"),
    (
        lambda path: remove_class(path / "b"),
        "has one class only, 'a'; give at least two",
    ),
    (lambda path: save(path / "train" / "a" / "0.png", 1), "train has one class only"),
]


@pytest.mark.parametrize(("spoil", "message"), SPOILERS)
def test_a_folder_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, spoil: Callable[[Path], object], message: str
) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    spoil(tmp_path)
    with pytest.raises(UsageError, match=message) as caught:
        image_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_broken_image_data_part_is_named_too(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 3, "b": 3})
    save(tmp_path / "a" / "big.png", 1, "RGB", side=80)
    whole = (tmp_path / "a" / "big.png").read_bytes()
    (tmp_path / "a" / "big.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"image .*big\.png cannot be read"):
        image_folder(tmp_path)


def test_a_valid_class_that_train_does_not_have_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 2, "b": 2})
    fill(tmp_path / "valid", {"a": 2, "c": 2})
    with pytest.raises(UsageError, match=r"valid.c is a class that train does not have \(it has a, b\)"):
        image_folder(tmp_path)


def test_an_empty_valid_folder_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 2, "b": 2})
    (tmp_path / "valid").mkdir()
    with pytest.raises(UsageError, match="valid has no class folders; fill it as train is, or remove it"):
        image_folder(tmp_path)


def test_images_of_one_flat_colour_are_refused(tmp_path: Path) -> None:
    for file in ("a/0.png", "a/1.png", "b/0.png", "b/1.png"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4), 9).save(tmp_path / file)
    with pytest.raises(UsageError, match="one flat colour"):
        image_folder(tmp_path)


def test_more_than_the_memory_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    fill(tmp_path, {"a": 2, "b": 2})
    cut_short(tmp_path / "a" / "0.png")
    with pytest.raises(UsageError, match=r"4 images of 1 x 20000 x 20000 need 6.0 GiB .* more than 2 GiB"):
        image_folder(tmp_path, size=20000)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size is 0; give the side of the images"),
        ({"valid_share": 1.0}, "valid_share is 1.0; give a share between 0 and 1"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(
    tmp_path: Path, options: dict[str, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        image_folder(tmp_path, **options)  # type: ignore[arg-type]


def test_a_path_without_class_folders_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "0.png", 1)
    with pytest.raises(UsageError, match="has no folders; put the images of each class into a folder"):
        image_folder(tmp_path)


@pytest.mark.parametrize("opens", [image_folder, open_data])
@pytest.mark.parametrize(("name", "what"), [("absent", "does not exist"), ("file", "is a file")])
def test_a_path_that_is_no_folder_is_refused(
    tmp_path: Path, opens: Callable[[Path], Loaders], name: str, what: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=f"{name} {what}; give"):
        opens(tmp_path / name)


def test_open_data_takes_a_folder_or_the_name_of_the_digits(tmp_path: Path) -> None:
    assert open_data(str(fill(tmp_path, {"a": 2, "b": 2})), size=5).input_size == (1, 5, 5)
    assert open_data("mnist", batch_size=10).num_classes == 10


def test_the_digits_cannot_be_resized() -> None:
    with pytest.raises(UsageError, match="size is 32, but the digits have 28 x 28 pixels"):
        open_data("mnist", size=32)
