"""What sampling reads, as tensors of fixed shapes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from rlinf_isaac.pi0.observation import CAMERAS, Observation


class Inputs(NamedTuple):
    """C cameras that are there, B observations, L prompt tokens, H actions of A dims.

    Attributes:
        images: (C * B, 3, S, S) uint8 or float32, camera by camera.
        image_masks: (C, B) bool.
        prompt_tokens, prompt_mask: (B, L).
        state: (B, A).
        noise: (B, H, A) float32.
    """

    images: Tensor
    image_masks: Tensor
    prompt_tokens: Tensor
    prompt_mask: Tensor
    state: Tensor
    noise: Tensor

    def observation(self, padded: bool) -> Observation:
        """The same for the plain path. Which of the cameras are there is not remembered, only their order matters."""
        count = len(self.image_masks)
        names = CAMERAS[:count]
        images = self.images.chunk(count) if count else ()
        return Observation(
            images=dict(zip(names, images, strict=True)),
            image_masks=dict(zip(names, self.image_masks, strict=True)),
            state=self.state,
            prompt_tokens=self.prompt_tokens,
            prompt_mask=self.prompt_mask,
            present_cameras=names,
            padded=padded,
        )
