"""Changes of training images: where they put a pixel, what they do to colours, what they leave alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlinf_isaac.config import load_config
from rlinf_isaac.config.sft_schema import AugmentConfig
from rlinf_isaac.pi0.augmentation import Changes, apply, draw
from rlinf_isaac.pi0.observation import float_images

FRONT, WRIST = "base_0_rgb", "left_wrist_0_rgb"
OPENPI = load_config("pi0", ["policy.tokenizer=byte"]).sft.augment


def images(count: int = 3, size: int = 16) -> torch.Tensor:
    values = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return torch.from_numpy(values)


def centre_of_light(image: torch.Tensor) -> tuple[float, float]:
    """Row and column of the mean of the brightness of an image in [-1, 1], in pixels from its middle."""
    light = (image.mean(0) + 1).double()
    places = torch.arange(len(light)) - (len(light) - 1) / 2
    return tuple(float((light.sum(axis) * places).sum() / light.sum()) for axis in (1, 0))


def test_without_any_the_images_are_those_of_the_camera():
    changes = draw(AugmentConfig(), FRONT, 3, np.random.default_rng(0))
    assert changes == Changes(None, None)
    assert torch.equal(apply(images(), changes), float_images(images()))


def test_changes_of_the_same_seed_are_the_same_and_every_image_has_its_own():
    one, same = (draw(OPENPI, FRONT, 5, np.random.default_rng([7, 3])) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one, same, strict=True))
    assert len(torch.unique(one.view, dim=0)) == len(torch.unique(one.colour, dim=0)) == 5
    assert torch.equal(one.rows(slice(1, 3)).view, one.view[1:3])


def test_cameras_on_the_wrist_are_neither_cropped_nor_turned():
    changes = draw(OPENPI, WRIST, 4, np.random.default_rng(0))
    assert changes.view is None
    assert changes.colour is not None


@given(st.integers(0, 2**32), st.floats(0.5, 1), st.floats(0, 45), st.floats(0, 0.5))
def test_a_crop_lies_within_the_view_and_a_shift_adds_its_part_of_the_side(seed, crop, degrees, shift):
    config = AugmentConfig(crop=crop, rotation_deg=degrees, shift=shift)
    changes = draw(config, FRONT, 8, np.random.default_rng(seed))
    if changes.view is None:
        assert (crop, degrees, shift) == (1, 0, 0)
        return
    turn = changes.view[:, :, :2]
    assert torch.allclose(torch.linalg.det(turn), torch.tensor(crop**2, dtype=torch.float32), rtol=1e-3)
    angles = torch.rad2deg(torch.atan2(turn[:, 1, 0], turn[:, 0, 0])).abs()
    assert (angles <= degrees + 1e-2).all()
    assert (changes.view[:, :, 2].abs() <= 1 - crop + 2 * shift + 1e-6).all()


def test_a_shift_moves_the_image_by_its_part_of_the_side():
    image = torch.full((1, 3, 16, 16), 0, dtype=torch.uint8)
    image[:, :, 7:9, 7:9] = 255
    view = torch.tensor([[[1.0, 0, 2 / 16 * 3], [0, 1, 0]]])  # the middle of the result lies 3 pixels further right
    row, column = centre_of_light(apply(image, Changes(view, None))[0])
    assert (row, column) == (pytest.approx(0, abs=1e-4), pytest.approx(-3, abs=1e-4))


def test_a_crop_enlarges():
    image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    image[:, :, 7:9, 9:11] = 255  # two pixels right of the middle
    row, column = centre_of_light(apply(image, Changes(torch.tensor([[[0.5, 0, 0], [0, 0.5, 0]]]), None))[0])
    assert (row, column) == (pytest.approx(0, abs=1e-4), pytest.approx(4, abs=0.05))


def test_beyond_the_edge_is_the_edge():
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    image[..., -1] = 200
    moved = apply(image, Changes(torch.tensor([[[1.0, 0, 1.0], [0, 1, 0]]]), None))
    assert torch.allclose(moved[..., 4:], float_images(image)[..., -1:].expand(-1, -1, -1, 4), atol=1e-5)


@pytest.mark.parametrize(
    ("factors", "expected"),
    [((1.5, 1, 1), lambda x: x * 1.5), ((1, 0.5, 1), lambda x: (x - x.mean()) * 0.5 + x.mean())],
)
def test_brightness_and_contrast(factors, expected):
    image = images(1) // 4  # stays within the range
    light = (float_images(image) + 1) / 2
    result = (apply(image, Changes(None, torch.tensor([factors]).float())) + 1) / 2
    assert torch.allclose(result, expected(light), atol=1e-5)


def test_without_saturation_all_is_grey_and_nothing_leaves_the_range():
    result = apply(images(), Changes(None, torch.tensor([[1.0, 1, 0]] * 3)))
    assert torch.allclose(result, result.mean(1, keepdim=True).expand_as(result), atol=1e-6)
    bright = apply(images(), Changes(None, torch.tensor([[1.3, 1.4, 1.5]] * 3)))
    assert bright.abs().max() <= 1
