"""RLinf's actor for OpenPI (`openpi_action_model.py` of its wheel), importable beside this project's torch.

The model, its sampling, its log-probabilities and RLinf's PPO losses are untouched. Replaced are RLinf's packages'
``__init__`` files (which import Ray and every model that it has), its logger, and three modules of OpenPI's that need
jax: the config's data class, the observation's, and the transforms. OpenPI's transforms resize, normalise and tokenise
on the CPU, row by row; the ones here only put an observation of the model's size into OpenPI's names.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
import types
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import upstream
from measure import DEVICE, HORIZON, STEPS

from rlinf_isaac.pi0.observation import CAMERAS

CHUNK, ACTION_DIM, VIEWS = 10, 7, 2
_PACKAGES = (
    *("rlinf", "rlinf.utils", "rlinf.algorithms"),
    *("rlinf.models", "rlinf.models.embodiment", "rlinf.models.embodiment.openpi"),
)


@dataclass(frozen=True)
class _Config:
    """The fields of OpenPI's ``Pi0Config`` that its PyTorch model reads."""

    dtype: str = "bfloat16"
    paligemma_variant: str = "gemma_2b"
    action_expert_variant: str = "gemma_300m"
    action_dim: int = 32
    action_horizon: int = HORIZON
    max_token_len: int = 48
    pi05: bool = False


@dataclass
class _Observation:
    """OpenPI's ``Observation``: images uint8 (B, H, W, 3) become float (B, 3, H, W) in [-1, 1]."""

    images: dict[str, torch.Tensor]
    image_masks: dict[str, torch.Tensor]
    state: torch.Tensor
    tokenized_prompt: torch.Tensor
    tokenized_prompt_mask: torch.Tensor
    token_ar_mask: torch.Tensor | None = None
    token_loss_mask: torch.Tensor | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> _Observation:
        def scaled(image: torch.Tensor) -> torch.Tensor:
            return image.float().permute(0, 3, 1, 2) / 255 * 2 - 1 if image.dtype == torch.uint8 else image

        images = {name: scaled(image) for name, image in data["image"].items()}
        prompt = data["tokenized_prompt"], data["tokenized_prompt_mask"]
        return cls(images, data["image_mask"], data["state"], *prompt)


def load(preset: str) -> torch.nn.Module:
    """RLinf's actor as `get_model` makes it for the expert's training, with random weights: bfloat16 as OpenPI mixes
    it, PPO with a value head, one step of flow-SDE. pi0's value is read off the expert, pi0.5's off the VLM."""
    _replace_what_needs_ray_or_jax()
    from rlinf.models.embodiment.openpi.openpi_action_model import OpenPi0Config, OpenPi0ForRLActionPrediction

    pi05 = preset == "pi05"
    config = OpenPi0Config(
        config_name=f"{preset}_libero",
        pi05=pi05,
        max_token_len=200 if pi05 else 48,
        num_images_in_input=VIEWS,
        action_chunk=CHUNK,
        action_env_dim=ACTION_DIM,
        num_steps=STEPS,
        train_expert_only=True,
        detach_critic_input=True,
        add_value_head=True,
        value_after_vlm=pi05,
    )
    model = upstream.built(OpenPi0ForRLActionPrediction, config)
    model.freeze_vlm()
    model.paligemma_with_expert.to_bfloat16_for_selected_params("bfloat16")
    model.setup_wrappers(transforms=[_row(config.max_token_len)], output_transforms=[_robot_actions])
    return model


def losses() -> Any:
    """RLinf's `policy_loss`, with its PPO losses registered."""
    _replace_what_needs_ray_or_jax()
    importlib.import_module("rlinf.algorithms.losses")  # registers them
    return importlib.import_module("rlinf.algorithms.registry").policy_loss


def _replace_what_needs_ray_or_jax() -> None:
    if "rlinf.scheduler" in sys.modules:
        return
    upstream.replace_jax()
    (root,) = importlib.util.find_spec("rlinf").submodule_search_locations or ()
    for name in _PACKAGES:
        package = sys.modules[name] = types.ModuleType(name)
        package.__path__ = [root + name.removeprefix("rlinf").replace(".", "/")]
    _module("rlinf.scheduler", Worker=type("Worker", (), {}))
    _module("rlinf.utils.logging", get_logger=lambda: logging.getLogger("rlinf"))
    _module("openpi.models.model", Observation=_Observation)
    _module("openpi.models.pi0_config", Pi0Config=_Config)
    _module("openpi.transforms", DataTransformFn=object, compose=lambda transforms: transforms[0])


def _module(name: str, **content: object) -> None:
    module = sys.modules[name] = types.ModuleType(name)
    vars(module).update(content)
    parent, _, child = name.rpartition(".")
    importlib.import_module(parent)
    setattr(sys.modules[parent], child, module)


def _row(prompt: int) -> Any:
    """One observation, as RLinf's `input_transform` hands over each row, in OpenPI's names."""

    def transform(row: dict[str, Any]) -> dict[str, Any]:
        images = [np.asarray(row["observation/image"]), np.asarray(row["observation/wrist_image"])]
        images += [np.zeros_like(images[0])] * (len(CAMERAS) - VIEWS)
        state = np.asarray(row["observation/state"], dtype=np.float32)
        return {
            "image": dict(zip(CAMERAS, images, strict=True)),
            "image_mask": {camera: np.bool_(index < VIEWS) for index, camera in enumerate(CAMERAS)},
            "state": np.pad(state, (0, _Config.action_dim - len(state))),
            "tokenized_prompt": np.ones(prompt, dtype=np.int64),
            "tokenized_prompt_mask": np.ones(prompt, dtype=bool),
        }

    return transform


def _robot_actions(row: dict[str, Any]) -> dict[str, Any]:
    return {"actions": row["actions"][:, :ACTION_DIM]}


def environment_observation(batch: int) -> dict[str, Any]:
    """What RLinf's environments hand to the rollout: images of the model's size (B, 224, 224, 3) uint8, the state."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (2, batch, 224, 224, 3), generator=generator, dtype=torch.uint8)
    return {
        "main_images": image[0].to(DEVICE),
        "wrist_images": image[1].to(DEVICE),
        "extra_view_images": None,
        "states": torch.randn(batch, 8, generator=generator).to(DEVICE),
        "task_descriptions": ["stack the cubes"] * batch,
    }
