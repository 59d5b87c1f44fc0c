"""OpenPI's data transforms in numpy: resizing with padding, and padding. Source: ``openpi/transforms.py``."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial

import numpy as np

MANY = 16
"""So many images are resized by several threads; Pillow lets go of the interpreter meanwhile."""
THREADS = 8


def resize_with_pad(images: np.ndarray, size: int) -> np.ndarray:
    """Resizes without distortion and pads with black to a square, as ``openpi_client.image_tools.resize_with_pad``.

    Args:
        images: (..., h, w, 3) uint8.
        size: side of the result in pixels.

    Returns:
        (..., size, size, 3) uint8; `images` itself if it has that size already.
    """
    height, width = images.shape[-3:-1]
    if (height, width) == (size, size):
        return images
    flat = images.reshape(-1, height, width, images.shape[-1])
    resize = partial(_resize_one, size=size)
    resized = (_threads(os.getpid()).map if len(flat) >= MANY else map)(resize, flat)
    return np.stack(list(resized)).reshape(*images.shape[:-3], size, size, -1)


def resized_sides(height: int, width: int, size: int) -> tuple[int, int]:
    """Height and width in pixels to which `resize_with_pad` scales an image before it pads it to a square of `size`.

    A side more than `size` times shorter than the other becomes 0; such an image cannot be resized.
    """
    ratio = max(width / size, height / size)
    return int(height / ratio), int(width / ratio)


@cache
def _threads(pid: int) -> ThreadPoolExecutor:
    """The threads of this process; one that was forked has none of its parent's."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="resize")


def _resize_one(image: np.ndarray, size: int) -> np.ndarray:
    from PIL import Image

    height, width = image.shape[:2]
    resized_height, resized_width = resized_sides(height, width, size)
    # Pillow widens its bilinear filter when it shrinks an image, which avoids aliasing; torch and OpenCV do not.
    resized = Image.fromarray(image).resize((resized_width, resized_height), resample=Image.Resampling.BILINEAR)
    top, left = (size - resized_height) // 2, (size - resized_width) // 2
    canvas = np.zeros((size, size, image.shape[-1]), dtype=image.dtype)
    canvas[top : top + resized_height, left : left + resized_width] = np.asarray(resized)
    return canvas


def pad_last(x: np.ndarray, width: int) -> np.ndarray:
    """Pads the last axis with zeros to `width`. Raises ValueError if it is longer already."""
    missing = width - x.shape[-1]
    if missing < 0:
        raise ValueError(f"{x.shape[-1]} dims do not fit into {width}")
    return np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, missing)])
