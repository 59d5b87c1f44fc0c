from __future__ import annotations

import numpy as np
import pytest

from rlinf_isaac.pi0.transforms import MANY, pad_last, resize_with_pad


def test_resize_keeps_the_right_size() -> None:
    images = np.zeros((2, 16, 16, 3), np.uint8)
    assert resize_with_pad(images, 16) is images


@pytest.mark.parametrize(("height", "width"), [(40, 20), (20, 40), (10, 5), (64, 64), (33, 7)])
def test_resize_pads_with_black_and_keeps_the_aspect(height: int, width: int) -> None:
    resized = resize_with_pad(np.full((1, height, width, 3), 200, np.uint8), 16)
    assert resized.shape == (1, 16, 16, 3)
    assert resized.dtype == np.uint8
    content = resized[0, :, :, 0] > 0
    rows, columns = content.any(1).sum(), content.any(0).sum()
    assert (rows, columns) == (int(16 * height / max(height, width)), int(16 * width / max(height, width)))
    assert (resized[0][content] == 200).all()
    inside = np.flatnonzero(content.any(1)), np.flatnonzero(content.any(0))
    assert [len(lines) and lines[0] for lines in inside] == [(16 - rows) // 2, (16 - columns) // 2]


def test_shrinking_does_not_alias() -> None:
    checkerboard = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    resized = resize_with_pad(np.repeat(checkerboard[None, :, :, None].astype(np.uint8), 3, axis=-1), 16)
    assert abs(resized[0, 4:-4, 4:-4].astype(int) - 127).max() <= 2


def test_many_images_are_resized_as_each_of_them() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, MANY, 24, 40, 3), dtype=np.uint8)
    expected = np.stack([np.stack([resize_with_pad(image, 16) for image in row]) for row in images])
    np.testing.assert_array_equal(resize_with_pad(images, 16), expected)


def test_pad_last() -> None:
    padded = pad_last(np.ones((2, 3)), 5)
    assert padded.tolist() == [[1, 1, 1, 0, 0]] * 2
    with pytest.raises(ValueError, match="do not fit"):
        pad_last(np.ones(6), 5)
