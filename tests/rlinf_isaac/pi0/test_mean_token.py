from __future__ import annotations

import dataclasses

import torch

from rlinf_isaac.pi0.gemma import Rope
from rlinf_isaac.pi0.observation import CAMERAS


def test_the_mean_token_is_that_of_the_valid_tokens_alone(model, make_observation) -> None:
    """Every row by itself, without padding and without the masked camera, has the mean it has in the batch."""
    observation = make_observation(model.config)
    cache = model.prefix_cache(observation, mean_token=True)
    assert cache.mean_token.shape == (3, model.config.vlm.width)
    for row, length in enumerate(observation.prompt_mask.sum(1).tolist()):
        alone = dataclasses.replace(
            observation,
            images={camera: image[row : row + 1] for camera, image in observation.images.items()},
            image_masks={camera: mask[row : row + 1] for camera, mask in observation.image_masks.items()},
            state=observation.state[row : row + 1],
            prompt_tokens=observation.prompt_tokens[row : row + 1, :length],
            prompt_mask=observation.prompt_mask[row : row + 1, :length],
        )
        assert alone.present_cameras == CAMERAS[:2]
        tokens, valid = model._prefix(alone)
        assert valid.all()
        positions = torch.arange(tokens.shape[1])[None]
        rope = Rope.of(positions, model.config.vlm.head_dim, tokens.dtype)
        _, output = model.vlm.language_model.encode(tokens, rope, torch.zeros(1, 1, 1, tokens.shape[1]))
        torch.testing.assert_close(cache.mean_token[row], output[0].mean(0), rtol=1e-4, atol=1e-5)


def test_asking_for_the_mean_token_changes_nothing_else(model, make_observation) -> None:
    observation = make_observation(model.config)
    plain, asked = (model.prefix_cache(observation, mean_token=asked) for asked in (False, True))
    assert plain.mean_token is None
    for before, now in zip(plain.keys_values, asked.keys_values, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, now, strict=True))
    assert torch.equal(plain.suffix_bias, asked.suffix_bias)
    twice = asked.repeat(2)
    assert torch.equal(twice.mean_token, asked.mean_token.repeat_interleave(2, 0))
