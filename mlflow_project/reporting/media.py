"""Pictures and videos of a run in the form in which a browser shows them without MLflow's UI."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageSequence

STILLS = (".png", ".jpg", ".jpeg", ".gif")
VIDEO = ".mp4"
_OF_THE_GRID = re.compile(
    r"images/(?P<key>.+)\+step\+(?P<step>\d+)\+timestamp\+\d+\+[0-9a-f-]+(?P<small>\+compressed\.webp|\.png)"
)
"""What `tracking.ui.image_names` makes."""


class Picture(NamedTuple):
    """A picture: its name, the step where it belongs (None: that of the newest metrics), and a PNG, JPEG or GIF."""

    name: str
    step: int | None
    data: bytes


def image_of(source: Path, target: str) -> Picture | None:
    """The artifact `target` as a picture; None if it is none, or a still beside its own animation.

    An animated WebP becomes an animated GIF. Videos have such a preview in MLflow's image grid, so they are left out.

    Raises:
        OSError: the file is gone, or is no image.
    """
    grid = _OF_THE_GRID.fullmatch(target)
    if grid is not None:
        if grid["small"] == ".png":
            return None
        return Picture(grid["key"], int(grid["step"]), _as_gif(source))
    if Path(target).suffix.lower() in STILLS:
        return Picture(str(Path(target).with_suffix("")), None, source.read_bytes())
    return None


def _as_gif(source: Path) -> bytes:
    with Image.open(source) as animation:
        duration = animation.info.get("duration") or 100
        frames = [frame.convert("RGB") for frame in ImageSequence.Iterator(animation)]
    data = io.BytesIO()
    frames[0].save(data, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    return data.getvalue()
