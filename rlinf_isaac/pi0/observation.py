"""The model's input: one batch of observations as tensors, with OpenPI's names and ranges."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from rlinf_isaac.tasks.task import SLOTS

CAMERAS = SLOTS
"""OpenPI's three camera keys, in the order of their tokens in the prefix."""


@dataclass(frozen=True)
class Observation:
    """A batch of B observations.

    Attributes:
        images: camera key -> (B, 3, S, S); uint8 as from a camera, or float in [-1, 1]. The model converts uint8 to
            float, so that only a quarter as many bytes are copied to the device.
        image_masks: camera key -> (B,) bool; False where that camera does not exist.
        state: (B, action_dim) float, normalised and zero-padded.
        prompt_tokens: (B, L) int64.
        prompt_mask: (B, L) bool; False on padding.
        present_cameras: keys with at least one True mask, in the order of `CAMERAS`. The other cameras are not
            encoded. If None, it is derived from the masks, so build observations on the CPU and then move them: reading
            a mask on a GPU waits for the GPU.
        padded: whether some token of the prefix is masked: padding of a prompt, or a camera that only some rows have.
            If None, it is derived from the masks.
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

    def seen(self) -> Observation:
        """The observation without the images of cameras that are not present."""
        return replace(self, images={camera: self.images[camera] for camera in self.present_cameras or ()})

    def pinned(self) -> Observation:
        """The same in pinned memory, from which `to` copies to a GPU without waiting."""
        return replace(
            self,
            images={camera: image.pin_memory() for camera, image in self.images.items()},
            image_masks={camera: mask.pin_memory() for camera, mask in self.image_masks.items()},
            state=self.state.pin_memory(),
            prompt_tokens=self.prompt_tokens.pin_memory(),
            prompt_mask=self.prompt_mask.pin_memory(),
        )

    def rows(self, index: slice) -> Observation:
        """The observations selected by `index`."""
        return replace(
            self,
            images={camera: image[index] for camera, image in self.images.items()},
            image_masks={camera: mask[index] for camera, mask in self.image_masks.items()},
            state=self.state[index],
            prompt_tokens=self.prompt_tokens[index],
            prompt_mask=self.prompt_mask[index],
        )


def float_images(images: Tensor) -> Tensor:
    """uint8 images of any shape -> float32 in [-1, 1], as OpenPI's ``Observation.from_dict``. Floats are unchanged."""
    return images if images.is_floating_point() else images.to(torch.float32) / 255.0 * 2.0 - 1.0


def to_device(tensor: Tensor, device: torch.device | str) -> Tensor:
    """Copies `tensor` to `device`. From pinned memory to a GPU the copy is asynchronous."""
    return tensor.to(device, non_blocking=torch.device(device).type == "cuda")
