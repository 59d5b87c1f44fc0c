"""Random changes of the training images: crop, rotation and shift of the view, brightness, contrast, saturation.

OpenPI (`preprocess_observation` in ``models/model.py``) uses crop 0.95, rotation 5 degrees, brightness 0.3, contrast
0.4 and saturation 0.5, and changes only the colours of wrist cameras. As in OpenPI, the changes of every image of every
sample are drawn independently. Here crop, rotation and shift are combined into one resampling instead of several.
"""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rlinf_isaac.config.sft_schema import AugmentConfig
from rlinf_isaac.pi0.observation import Observation, float_images


class Changes(NamedTuple):
    """The random changes of N images of one camera.

    Attributes:
        view: (N, 2, 3), affine maps from positions in the result to positions in the image, in the coordinates of
            `F.affine_grid`. None leaves the geometry unchanged.
        colour: (N, 3), factors of brightness, contrast and saturation. None leaves the colours unchanged.
    """

    view: Tensor | None
    colour: Tensor | None

    def rows(self, index: slice | Tensor) -> Changes:
        """The changes of some of the images."""
        return Changes(*(None if field is None else field[index] for field in self))


def draw(config: AugmentConfig, camera: str, count: int, random: np.random.Generator) -> Changes:
    """Draws the changes of `count` images of `camera`. The tensors are on the CPU."""
    view = colour = None
    if "wrist" not in camera and (config.crop < 1 or config.rotation_deg):
        margin = 1 - config.crop
        angle = np.radians(random.uniform(-config.rotation_deg, config.rotation_deg, count))
        offset = random.uniform(-margin, margin, (count, 2, 1))
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
        view = np.concatenate([config.crop * rotation, offset], axis=2)
    if config.shift:
        view = np.eye(2, 3)[None].repeat(count, 0) if view is None else view
        view[:, :, 2] += 2 * random.uniform(-config.shift, config.shift, (count, 2))
    spread = np.array([config.brightness, config.contrast, config.saturation])
    if spread.any():
        colour = 1 + spread * random.uniform(-1, 1, (count, 3))
    return Changes(*(None if field is None else torch.from_numpy(field.astype(np.float32)) for field in (view, colour)))


def apply(images: Tensor, changes: Changes) -> Tensor:
    """images (N, 3, S, S), uint8 or float in [-1, 1], on any device -> changed images, float in [-1, 1].

    Pixels outside the image take the value of the nearest pixel on its edge.
    """
    images = float_images(images)
    view, colour = (None if field is None else field.to(images.device) for field in changes)
    if view is not None:
        grid = F.affine_grid(view, list(images.shape), align_corners=False)
        images = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    if colour is not None:
        brightness, contrast, saturation = colour.T[:, :, None, None, None]
        images = (images + 1) / 2 * brightness
        mean = images.mean((1, 2, 3), keepdim=True)
        images = (images - mean) * contrast + mean
        grey = images.mean(1, keepdim=True)
        images = ((images - grey) * saturation + grey).clamp(0, 1) * 2 - 1
    return images


def changed(observation: Observation, changes: dict[str, Changes]) -> Observation:
    """A copy of the observation whose images are changed; `changes` are by camera."""
    images = {camera: apply(observation.images[camera], change) for camera, change in changes.items()}
    return replace(observation, images=observation.images | images)
