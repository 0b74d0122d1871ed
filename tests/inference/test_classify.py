from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from actograph.data.image_file import read_image
from actograph.data.image_folder import image_folder
from actograph.data.normalization import Normalization
from actograph.errors import UsageError
from actograph.inference.classify import BATCH_SIZE, classify
from actograph.inference.export import Export


class Mean(nn.Module):
    """Two logits: 0, and the mean of the input."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(dim=(1, 2, 3))
        return torch.stack([torch.zeros_like(mean), mean], dim=1)


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.full((len(x), 2), torch.nan)


def export(channels: int = 1) -> Export:
    normalization = Normalization((0.5,) * channels, (0.1,) * channels)
    return Export(Mean(), ("dark", "light"), (channels, 6, 8), normalization)


def image(path: Path, value: int | tuple[int, ...], mode: str = "L") -> Path:
    Image.new(mode, (11, 13), value).save(path)
    return path


def test_images_get_their_class_and_its_probability(tmp_path: Path) -> None:
    light, dark = image(tmp_path / "light.png", 230), image(tmp_path / "dark.png", 0)
    first, second = classify(export(), [light, dark])
    assert (first.image, first.class_name, second.class_name) == (light, "light", "dark")
    logit = (230 / 255 - 0.5) / 0.1
    assert first.probability == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)
    assert list(second.probabilities) == ["dark", "light"]  # the likeliest first
    assert sum(first.probabilities.values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("mode", "value"), [("L", 200), ("RGB", (200, 200, 200)), ("RGBA", (200, 200, 200, 255))]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_made_those_of_the_training(
    tmp_path: Path, mode: str, value: int | tuple[int, ...], channels: int
) -> None:
    (found,) = classify(export(channels), [image(tmp_path / "a.png", value, mode)])
    assert found.probability == pytest.approx(1 / (1 + np.exp(-(200 / 255 - 0.5) / 0.1)), rel=1e-5)


def test_a_file_is_prepared_as_in_training(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(8):
        folder = tmp_path / ("a", "b")[number % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 31, 3), dtype=np.uint8)).save(folder / f"{number}.png")
    data = image_folder(tmp_path, size=9, batch_size=8)
    seen: list[Tensor] = []

    class Look(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.zeros(len(x), 2)

    classify(
        Export(Look(), data.class_names, data.input_size, data.normalization),
        sorted(tmp_path.glob("*/*.png")),
    )
    (x, _), (valid_x, _) = *data.train, *(data.valid or ())
    trained = torch.cat([x, valid_x])
    for one in seen[0]:
        assert any(torch.equal(one, other) for other in trained)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((8, 8), np.uint8)
    pixels[:4] = 255  # light on top, as the camera held upside down has stored it
    exif = Image.Exif()
    exif[0x0112] = 3  # orientation: turned by 180 degrees
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    upright = read_image(tmp_path / "a.png", (1, 8, 8))
    assert upright[0, :, 0].tolist() == [0, 0, 0, 0, 255, 255, 255, 255]


def test_many_images_go_in_batches(tmp_path: Path) -> None:
    path = image(tmp_path / "a.png", 3)
    assert len(classify(export(), [path] * (BATCH_SIZE + 1))) == BATCH_SIZE + 1


def test_classes_without_names_are_numbered(tmp_path: Path) -> None:
    nameless = Export(Mean(), (), (1, 6, 8), Normalization((0.5,), (0.1,)))
    (found,) = classify(nameless, [image(tmp_path / "a.png", 255)])
    assert found.class_name == "1"


def test_what_cannot_be_classified_is_told(tmp_path: Path) -> None:
    path = image(tmp_path / "a.png", 0)
    normalization = Normalization((0.5,), (0.1,))
    (tmp_path / "broken.png").write_bytes(path.read_bytes()[:40])
    cases = [
        (export(), [], "no image to classify"),
        (export(), [tmp_path / "none.png"], "no image .*none.png"),
        (export(), [tmp_path / "broken.png"], "broken.png cannot be read"),
        (Export(Mean()), [path], "does not tell the size"),
        (Export(Mean(), (), (4,), normalization), [path], r"inputs of shape \(4,\)"),
        (Export(Mean(), (), (2, 4, 4), normalization), [path], r"inputs of shape \(2, 4, 4\)"),
        (Export(Mean(), (), (1, 4, 4), Normalization((0.5,), (0.1,), 1.0)), [path], "floating point data"),
        (Export(nn.Identity(), (), (1, 4, 4), normalization), [path], "no classifier"),
        (Export(Mean(), ("a", "b", "c"), (1, 4, 4), normalization), [path], "2 outputs, .* names 3 classes"),
        (Export(Broken(), (), (1, 4, 4), normalization), [path], "outputs for .*a.png are not finite"),
    ]
    for given, images, words in cases:
        with pytest.raises(UsageError, match=words):
            classify(given, images)
