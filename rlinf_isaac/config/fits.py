"""Values of the config that must fit each other for a model to be built, and for a policy to act.

The preflight asks before anything heavy is imported; model and policy ask again, for they can be built without it.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlinf_isaac.config.schema import ModelConfig, PolicyConfig
from rlinf_isaac.ground.errors import Problem

Misfit = tuple[tuple[str, ...], Problem]
"""Keys whose values do not fit each other, and how. A verb that does not read one of them is not concerned."""


def check_architecture(model: ModelConfig) -> Iterator[Misfit]:
    """The patches tile the image, the heads divide the tower's width, and the transformers share their attention."""
    vision = model.vision
    if vision.image_size % vision.patch_size:
        cause = f"model.vision.image_size {vision.image_size} is no multiple of patch_size {vision.patch_size}"
        problem = Problem("patch-size", cause, "choose an image size that the patches tile")
        yield ("model.vision.image_size", "model.vision.patch_size"), problem
    if vision.width % vision.num_heads:
        cause = f"model.vision.width {vision.width} is no multiple of num_heads {vision.num_heads}"
        problem = Problem("vision-heads", cause, "choose a width that the heads divide")
        yield ("model.vision.width", "model.vision.num_heads"), problem
    for name in ("depth", "num_heads", "num_kv_heads", "head_dim"):
        left, right = getattr(model.vlm, name), getattr(model.expert, name)
        if left != right:
            cause = f"model.vlm.{name} is {left} but model.expert.{name} is {right}"
            problem = Problem("expert-shape", cause, "VLM and expert share attention: make them equal")
            yield (f"model.vlm.{name}", f"model.expert.{name}"), problem


def check_chunk(policy: PolicyConfig, model: ModelConfig) -> Iterator[Misfit]:
    """No more actions can be executed than are predicted."""
    if policy.action_chunk > model.action_horizon:
        cause = f"policy.action_chunk {policy.action_chunk} exceeds model.action_horizon {model.action_horizon}"
        problem = Problem("chunk-horizon", cause, f"execute at most {model.action_horizon} actions of a chunk")
        yield ("policy.action_chunk", "model.action_horizon"), problem
