from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from actograph.data.augment import (
    Border,
    Compose,
    Cutout,
    RandomAffine,
    RandomCrop,
    RandomHorizontalFlip,
    RandomVerticalFlip,
    Transform,
    affine,
)
from actograph.errors import UsageError

ALL = [
    RandomCrop(3),
    RandomCrop(2, "zeros"),
    RandomHorizontalFlip(),
    RandomVerticalFlip(),
    RandomAffine(degrees=20, scale=0.2, shear=10, translate=3),
    Cutout(5),
    Compose((RandomCrop(2), RandomHorizontalFlip(), Cutout(3))),
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(samples: int = 6, channels: int = 2, height: int = 9, width: int = 12) -> Tensor:
    return torch.rand(samples, channels, height, width, generator=generator(99))


def moved(
    x: Tensor, degrees: float = 0, scale: float = 1, shear: float = 0, right: float = 0, down: float = 0
) -> Tensor:
    """Move all images by the same amounts."""
    same = [torch.full((len(x),), float(value)) for value in (degrees, scale, shear, right, down)]
    return affine(x, degrees=same[0], scale=same[1], shear=same[2], right=same[3], down=same[4])


@pytest.mark.parametrize("transform", ALL, ids=str)
def test_a_transform_keeps_shape_and_type_follows_its_generator_and_leaves_its_input(
    transform: Transform,
) -> None:
    x, before = images(), images()
    state = torch.get_rng_state()
    first = transform(x, generator(1))
    assert (first.shape, first.dtype) == (x.shape, x.dtype)
    assert torch.equal(first, transform(x, generator(1)))
    assert not torch.equal(first, transform(x, generator(2)))
    assert not torch.equal(first, x)
    assert torch.equal(x, before)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "transform",
    [RandomCrop(0), RandomHorizontalFlip(0), RandomVerticalFlip(0), Cutout(0), Cutout(4, p=0), Compose(())],
    ids=str,
)
def test_no_strength_changes_nothing(transform: Transform) -> None:
    assert torch.equal(transform(images(), generator()), images())


def test_an_affine_of_no_strength_changes_only_the_rounding() -> None:
    torch.testing.assert_close(RandomAffine()(images(), generator()), images(), atol=1e-5, rtol=0)


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts torch's operations."""

    count = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))


def num_calls(transform: Transform, samples: int) -> int:
    with Calls() as calls:  # type: ignore[no-untyped-call]
        transform(images(samples), generator())
    return int(calls.count)


@pytest.mark.parametrize("transform", ALL, ids=str)
def test_the_number_of_torch_calls_does_not_depend_on_the_batch(transform: Transform) -> None:
    assert 0 < num_calls(transform, 2) == num_calls(transform, 50) < 120


def test_a_crop_is_one_of_all_shifts_each_about_as_often() -> None:
    x = images(1, height=7, width=8).expand(5000, -1, -1, -1)
    padded = torch.nn.functional.pad(x[0], (1, 1, 1, 1))
    windows = torch.stack(
        [padded[:, top : top + 7, left : left + 8] for top in range(3) for left in range(3)]
    )
    cropped = RandomCrop(1, "zeros")(x, generator())
    matches = (cropped.unsqueeze(1) == windows).flatten(2).all(2)  # (samples, shifts)
    assert (matches.sum(1) == 1).all()
    counts = matches.sum(0)  # of 5,000: 556 each, standard deviation 22
    assert 445 < int(counts.min()) <= int(counts.max()) < 667


@pytest.mark.parametrize(("border", "inside"), [("border", 3.0), ("reflection", 2.0), ("zeros", 0.0)])
def test_a_border_is_what_it_says(border: Border, inside: float) -> None:
    row = torch.tensor([1.0, 2.0, 3.0]).expand(200, 1, 3, 3)
    cropped = RandomCrop(1, border)(row, generator())
    shifted = cropped[(cropped[:, 0, 1, 1] == 3.0), 0, 1]  # those whose window is one to the right
    assert len(shifted) > 30
    assert shifted.tolist() == [[2.0, 3.0, inside]] * len(shifted)


@pytest.mark.parametrize(
    ("transform", "axis"),
    [(RandomHorizontalFlip, -1), (RandomVerticalFlip, -2)],
    ids=["horizontal", "vertical"],
)
def test_a_flip_mirrors_the_share_it_is_given(transform: Callable[[float], Transform], axis: int) -> None:
    x = images(2000)
    flipped = transform(0.3)(x, generator())
    is_flipped = (flipped == x.flip(axis)).flatten(1).all(1)
    assert ((flipped == x).flatten(1).all(1) ^ is_flipped).all()
    assert 540 < int(is_flipped.sum()) < 660  # of 2,000: 600, standard deviation 20
    assert torch.equal(transform(1.0)(x, generator()), x.flip(axis))


@pytest.mark.parametrize(("right", "down"), [(2, 0), (0, -3), (-1, 2)])
def test_a_shift_by_whole_pixels_is_a_roll_inside(right: int, down: int) -> None:
    x = images()
    shifted = moved(x, right=right, down=down)
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(shifted[inner], x.roll((down, right), (2, 3))[inner], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("degrees", "turns"), [(90, -1), (-90, 1), (180, 2)])
def test_a_rotation_by_right_angles_is_rot90(degrees: float, turns: int) -> None:
    x = images(height=8, width=8)
    torch.testing.assert_close(moved(x, degrees=degrees), x.rot90(turns, (2, 3)), atol=1e-5, rtol=0)


def test_a_rotation_keeps_distances_in_images_that_are_not_square() -> None:
    x = images(height=9, width=15)
    square = (..., slice(3, 12))  # in the middle
    torch.testing.assert_close(moved(x, degrees=90)[square], x[square].rot90(-1, (2, 3)), atol=1e-5, rtol=0)


def test_an_image_is_shifted_after_it_is_rotated() -> None:
    x = images(height=9, width=11)
    shifted = moved(x, degrees=90, right=1, down=2)
    expected = moved(x, degrees=90).roll((2, 1), (2, 3))
    inner = (..., slice(3, -3), slice(3, -3))
    torch.testing.assert_close(shifted[inner], expected[inner], atol=1e-5, rtol=0)


def test_scale_and_shear_move_pixels_where_they_should() -> None:
    x = torch.zeros(1, 1, 9, 9)
    x[..., 4, 6] = x[..., 6, 4] = 1  # two to the right, and two below the centre (4, 4)
    larger = moved(x, scale=1.5)
    assert (float(larger[0, 0, 4, 7]), float(larger[0, 0, 7, 4])) == pytest.approx((1, 1), abs=1e-5)
    sheared = moved(x, shear=45)
    assert float(sheared[0, 0, 6, 6]) == pytest.approx(1, abs=1e-5)  # the lower one moved right by its height
    assert float(sheared[0, 0, 4, 6]) == pytest.approx(1, abs=1e-5)
    both = moved(x, shear=45, degrees=90)  # sheared first: (2, 2) right below turns to the left
    assert float(both[0, 0, 6, 2]) == pytest.approx(1, abs=1e-5)


def test_random_affine_draws_every_amount_within_its_range() -> None:
    x = torch.zeros(400, 1, 41, 41)
    x[..., 20, 20] = 1
    mass = RandomAffine(translate=5)(x, generator())[:, 0]
    position = torch.arange(41.0) - 20
    down, right = (mass.sum(2) * position).sum(1), (mass.sum(1) * position).sum(1)
    for shift in (down, right):
        assert -5 <= float(shift.min()) < -4.7
        assert 4.7 < float(shift.max()) <= 5
    assert abs(float(torch.corrcoef(torch.stack([down, right]))[0, 1])) < 0.15


def test_cutout_blanks_one_square_around_any_pixel() -> None:
    blank = Cutout(3, fill=-1)(images(3000), generator()) == -1
    assert (blank == blank[:, :1]).all()  # in all channels
    counts = blank[:, 0].sum((1, 2))
    assert set(counts.tolist()) == {4, 6, 9}  # in a corner, at an edge, inside
    assert (blank[:, 0].any(2).sum(1) * blank[:, 0].any(1).sum(1) == counts).all()  # a rectangle
    whole = float((counts == 9).float().mean())
    assert whole == pytest.approx(
        7 * 10 / (9 * 12), abs=0.035
    )  # centres not at the edge; standard deviation 0.009
    share = (Cutout(4, p=0.25)(images(2000), generator()) == 0).flatten(1).any(1).float().mean()
    assert float(share) == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomCrop(-1), "padding is -1; give a whole number of pixels"),
        (lambda: RandomCrop(1.5), "padding is 1.5"),  # type: ignore[arg-type]
        (lambda: RandomCrop(1, "wrap"), "border is 'wrap'; give one of 'border', 'ref"),  # type: ignore[arg-type]
        (lambda: RandomHorizontalFlip(1.5), "p is 1.5; give a probability"),
        (lambda: RandomVerticalFlip(-1), "p is -1; give a probability"),
        (lambda: RandomAffine(degrees=200), "degrees is 200; give at least 0 and at most 180"),
        (lambda: RandomAffine(scale=1), "scale is 1; give at least 0 and below 1"),
        (lambda: RandomAffine(shear=90), "shear is 90; give at least 0 and below 90"),
        (lambda: RandomAffine(translate=float("nan")), "translate is nan"),
        (lambda: RandomAffine(border="mirror"), "border is 'mirror'"),  # type: ignore[arg-type]
        (lambda: Cutout(True), "size is True; give a whole number of pixels"),
        (lambda: Compose((3,)), "3 is no transform"),  # type: ignore[arg-type]
        (lambda: RandomCrop(9)(images(), generator()), "padding is 9, but images of 9 x 12 .* at most 8"),
        (lambda: Cutout(2)(torch.zeros(2, 3), generator()), r"shape \(2, 3\); augmentations take floating"),
        (lambda: RandomAffine()(images().to(torch.uint8), generator()), "x is torch.uint8"),
    ],
)
def test_what_cannot_be_used_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make()
