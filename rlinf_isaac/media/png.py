"""Converts RGB images to PNG bytes and back. It imports little, so that worker processes start fast."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from rlinf_isaac.ground.errors import DatasetError

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_END = b"IEND\xaeB`\x82"  # the last chunk and its checksum
_RGB_MODES = ("RGB", "RGBA", "L", "LA", "P")  # modes with 8 bits per channel; conversion to RGB loses only alpha

_REPLACE = "restore the dataset from where it was copied or recorded"


def encode_png(image: np.ndarray) -> bytes:
    """PNG bytes of a uint8 (height, width, 3) image. Compression level 1 is four times as fast and a little larger."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        cause = f"an image must be uint8 (height, width, 3), not {image.dtype} {image.shape}"
        raise DatasetError.of("image-array", cause, "scale it to 0-255 and convert it to uint8")
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def decode_image(data: bytes) -> np.ndarray:
    """uint8 (height, width, 3) from PNG (or any format Pillow reads).

    Raises:
        DatasetError: the bytes are damaged, or hold more than 8 bits per channel (depth), which RGB would clip.
    """
    if data.startswith(_SIGNATURE) and _END not in data:  # Pillow does not notice every truncation
        cause = f"an image of {len(data)} bytes is damaged: it lacks its end"
        raise DatasetError.of("image-damaged", cause, _REPLACE)
    try:
        with Image.open(io.BytesIO(data)) as image:
            if image.mode not in _RGB_MODES:
                cause = f"an image of mode {image.mode} is not 8-bit RGB"
                raise DatasetError.of("image-mode", cause, "store depth as a numeric feature")
            return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        cause = f"an image of {len(data)} bytes is damaged: it cannot be decoded ({error})"
        raise DatasetError.of("image-damaged", cause, _REPLACE) from error


def png_shape(data: bytes) -> tuple[int, int, int]:
    """(height, width, channels) of 8-bit PNG bytes, from the header. Raises DatasetError if they are not such a PNG."""
    if data[:8] != _SIGNATURE or data[12:16] != b"IHDR" or _END not in data:
        cause = f"{len(data)} bytes that were given as an image are not a whole PNG"
        raise DatasetError.of("image-not-png", cause, "encode images with encode_png")
    width, height, depth, colour = struct.unpack(">IIBB", data[16:26])
    channels = {0: 1, 2: 3, 4: 2, 6: 4}.get(colour, 0)
    if depth != 8 or not channels:
        cause = f"a PNG of bit depth {depth} and colour type {colour} was given as an image"
        raise DatasetError.of("image-mode", cause, "encode images with encode_png")
    return height, width, channels
