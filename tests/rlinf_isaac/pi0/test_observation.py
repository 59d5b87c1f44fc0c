from __future__ import annotations

import dataclasses

import torch

from rlinf_isaac.pi0.observation import CAMERAS, float_images


def test_present_cameras_follow_the_masks(config, make_observation) -> None:
    observation = make_observation(config)
    assert observation.present_cameras == CAMERAS[:2]
    assert observation.batch_size == 3
    masks = dict(observation.image_masks) | {CAMERAS[0]: torch.zeros(3, dtype=torch.bool)}
    masks[CAMERAS[2]] = torch.tensor([False, True, False])
    changed = dataclasses.replace(observation, image_masks=masks, present_cameras=None)
    assert changed.present_cameras == CAMERAS[1:]


def test_to_moves_everything_and_keeps_the_cameras(config, make_observation) -> None:
    moved = make_observation(config).to("meta")
    tensors = [*moved.images.values(), *moved.image_masks.values(), moved.state, moved.prompt_tokens, moved.prompt_mask]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.present_cameras == CAMERAS[:2]


def test_padded_is_what_any_mask_hides(config, make_observation) -> None:
    observation = make_observation(config)
    assert observation.padded  # prompts of different lengths
    whole = dataclasses.replace(observation, prompt_mask=torch.ones_like(observation.prompt_mask), padded=None)
    assert whole.padded is False  # the third camera is absent: nobody reads its mask
    masks = dict(whole.image_masks) | {CAMERAS[0]: torch.tensor([True, False, True])}
    assert dataclasses.replace(whole, image_masks=masks, padded=None).padded
    assert whole.to("meta").padded is False


def test_bytes_become_floats_from_minus_one_to_one() -> None:
    ends = float_images(torch.tensor([0, 255], dtype=torch.uint8))
    assert ends.tolist() == [-1.0, 1.0]
    assert float_images(ends) is ends
