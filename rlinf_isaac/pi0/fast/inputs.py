"""The inputs of sampling as tensors of fixed shapes, so that a CUDA graph can be replayed on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from rlinf_isaac.pi0.observation import CAMERAS, Observation


class Inputs(NamedTuple):
    """The inputs of one call. C present cameras, B observations, L prompt tokens, H actions of A dims.

    Attributes:
        images: of each camera, (B, 3, S, S) uint8 or float32.
        image_masks: (C, B) bool.
        prompt_tokens, prompt_mask: (B, L).
        state: (B, A).
        noise: (B, H, A) float32.
    """

    images: tuple[Tensor, ...]
    image_masks: Tensor
    prompt_tokens: Tensor
    prompt_mask: Tensor
    state: Tensor
    noise: Tensor

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Inputs:
        """The inverse of `tensors`."""
        return cls(tuple(tensors[:-5]), *tensors[-5:])

    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, flat. Each camera is a tensor of its own, which can be copied to the device as it is."""
        return (*self.images, *self[1:])

    def observation(self, padded: bool) -> Observation:
        """The inputs as an `Observation`, for the path without fused weights.

        The cameras get the first C names of `CAMERAS`, because the model depends on their order, not on their names.
        """
        names = CAMERAS[: len(self.images)]
        return Observation(
            images=dict(zip(names, self.images, strict=True)),
            image_masks=dict(zip(names, self.image_masks, strict=True)),
            state=self.state,
            prompt_tokens=self.prompt_tokens,
            prompt_mask=self.prompt_mask,
            present_cameras=names,
            padded=padded,
        )
