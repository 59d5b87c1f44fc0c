from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.media.png import decode_image, encode_png, png_shape

IMAGES = hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3)))


def saved(image: Image.Image, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format)
    return buffer.getvalue()


@settings(deadline=None)
@given(IMAGES)
def test_round_trip(image):
    data = encode_png(image)
    assert png_shape(data) == image.shape
    assert np.array_equal(decode_image(data), image)


def test_not_contiguous():
    image = np.random.default_rng(0).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    assert np.array_equal(decode_image(encode_png(image[::-1, ::2])), image[::-1, ::2])


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4), np.uint8), np.zeros((3, 4, 4), np.uint8)])
def test_only_uint8_rgb_is_encoded(image):
    with pytest.raises(DatasetError, match="must be uint8"):
        encode_png(image)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA"])
def test_other_8_bit_modes_become_rgb(mode):
    grey = np.full((3, 5, 3), 100, np.uint8)
    assert np.array_equal(decode_image(saved(Image.fromarray(grey[..., 0]).convert(mode))), grey)


def test_depth_images_are_refused_rather_than_clipped():
    depth = saved(Image.fromarray(np.full((3, 5), 1000, np.uint16)))
    with pytest.raises(DatasetError, match="not 8-bit RGB"):
        decode_image(depth)
    with pytest.raises(DatasetError, match="bit depth 16"):
        png_shape(depth)


def test_what_is_no_png():
    for data in (b"", b"text", saved(Image.new("RGB", (4, 4)), "JPEG")):
        with pytest.raises(DatasetError, match="not a whole PNG"):
            png_shape(data)


@settings(deadline=None)
@given(IMAGES, st.data())
def test_truncated_png_is_an_error(image, data):
    png = encode_png(image)
    cut = data.draw(st.integers(0, len(png) - 1))
    with pytest.raises(DatasetError, match="damaged"):
        decode_image(png[:cut])
