"""What the model reads: one batch of observations as tensors, in OpenPI's names and ranges."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
"""OpenPI's three camera keys, in the order in which their tokens enter the prefix."""


@dataclass(frozen=True)
class Observation:
    """A batch of B observations.

    Attributes:
        images: camera key -> (B, 3, S, S); uint8 as cameras give it, or float in [-1, 1]. The model makes floats of
            bytes, so that a quarter of the data travels to a device.
        image_masks: camera key -> (B,) bool; False where that camera does not exist.
        state: (B, action_dim) float, normalised and zero-padded.
        prompt_tokens: (B, L) int64.
        prompt_mask: (B, L) bool; False on padding.
        present_cameras: keys with at least one True mask, in the order of `CAMERAS`. Cameras that nobody sees are
            never encoded. Derived from the masks when not given: build observations on the CPU, where looking at a
            mask costs nothing, and then move them.
        padded: whether some token of the prefix is masked: padding of a prompt, or a camera that only some rows have.
            Derived like `present_cameras`.
    """

    images: dict[str, Tensor]
    image_masks: dict[str, Tensor]
    state: Tensor
    prompt_tokens: Tensor
    prompt_mask: Tensor
    present_cameras: tuple[str, ...] | None = field(default=None)
    padded: bool | None = field(default=None)

    def __post_init__(self) -> None:
        if self.present_cameras is None:
            present = tuple(camera for camera in CAMERAS if camera in self.images and self.image_masks[camera].any())
            object.__setattr__(self, "present_cameras", present)
        if self.padded is None:
            masks = [self.image_masks[camera] for camera in self.present_cameras or ()]
            object.__setattr__(self, "padded", not all(bool(mask.all()) for mask in (*masks, self.prompt_mask)))

    @property
    def batch_size(self) -> int:
        return self.state.shape[0]

    def to(self, device: torch.device | str) -> Observation:
        return replace(
            self,
            images={camera: to_device(image, device) for camera, image in self.images.items()},
            image_masks={camera: to_device(mask, device) for camera, mask in self.image_masks.items()},
            state=to_device(self.state, device),
            prompt_tokens=to_device(self.prompt_tokens, device),
            prompt_mask=to_device(self.prompt_mask, device),
        )

    def rows(self, index: slice) -> Observation:
        """Some of the observations."""
        return replace(
            self,
            images={camera: image[index] for camera, image in self.images.items()},
            image_masks={camera: mask[index] for camera, mask in self.image_masks.items()},
            state=self.state[index],
            prompt_tokens=self.prompt_tokens[index],
            prompt_mask=self.prompt_mask[index],
        )


def float_images(images: Tensor) -> Tensor:
    """uint8 images of any shape -> float32 in [-1, 1], as OpenPI's ``Observation.from_dict``. Floats stay as is."""
    return images if images.is_floating_point() else images.to(torch.float32) / 255.0 * 2.0 - 1.0


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """`tensor` on `device`; a GPU fetches it by itself where it is pinned."""
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")
