from __future__ import annotations

import torch

from rlinf_isaac.config.schema import VisionConfig
from rlinf_isaac.pi0.siglip import VisionTransformer

CONFIG = VisionConfig(width=12, depth=2, mlp_dim=20, num_heads=3, patch_size=4, image_size=8)


def test_patches_are_ordered_row_by_row() -> None:
    tower = VisionTransformer(CONFIG)
    torch.nn.init.zeros_(tower.embeddings.position_embedding.weight)
    images = torch.zeros(1, 3, 8, 8)
    images[:, :, :4, 4:] = 1  # the upper right patch
    tokens = tower.embeddings(images)[0]
    assert tokens.shape == (4, 12)
    different = (tokens - tokens[0]).abs().sum(-1) > 1e-4
    assert different.tolist() == [False, True, False, False]


def test_tokens_attend_to_every_patch_of_their_own_image_only() -> None:
    tower = VisionTransformer(CONFIG)
    images = torch.rand(2, 3, 8, 8)
    before = tower(images)
    images[0, :, 4:, 4:] += 1
    after = tower(images)
    assert ((after - before)[0].abs().amax(-1) > 1e-6).all()
    assert torch.equal(after[1], before[1])
