"""Checkpoints of other people's programs, file by file as those programs write them, of a model that is tiny.

`tests/rlinf_isaac/checkpoint/foreign/test_lerobot_policy.py` compares lerobot's with the real writer's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file, save_model
from support import small_config

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.pi0.layout import UNREAD
from rlinf_isaac.pi0.model import Pi0, initialise

STATE_DIM, ACTION_DIM = 8, 7
# OpenPI's variant "dummy", the only one that fits into a test.
_DUMMY = {"width": 64, "depth": 4, "mlp_dim": 128, "num_heads": 8, "num_kv_heads": 1, "head_dim": 16}
DUMMY = [f"model.{part}.{name}={size}" for part in ("vlm", "expert") for name, size in _DUMMY.items()]


def dummy_config(pi05: bool, *overrides: str) -> JobConfig:
    """A job whose Gemmas are of OpenPI's variant ``dummy`` and whose state is RLinf's."""
    return small_config([*DUMMY, "policy.state_layout=proprio", f"model.pi05={str(pi05).lower()}", *overrides])


def dummy_preset(path: Path, pi05: bool) -> Path:
    """The same as a preset file."""
    lines = ["base: tiny", "preset: dummy", "model:", f"  pi05: {str(pi05).lower()}"]
    lines += [f"  {part}: {json.dumps(_DUMMY)}" for part in ("vlm", "expert")]
    lines.append('  vision: {"width": 32, "depth": 1, "mlp_dim": 32, "patch_size": 32}')
    path.write_text("\n".join([*lines, "policy: {state_layout: proprio}", ""]))
    return path


def dummy_model(config: JobConfig) -> Pi0:
    """Its model, with values."""
    model = Pi0(config.model)
    initialise(model, seed=3)
    return model


def statistics(dim: int) -> dict[str, torch.Tensor]:
    """What lerobot's dataset statistics have of one feature, and more than a policy needs."""
    rows = np.random.default_rng(dim).normal(1, 3, size=(1000, dim)).astype(np.float32)
    quantiles = {f"q{level:02d}": np.quantile(rows, level / 100, 0).astype(np.float32) for level in (1, 10, 50, 90, 99)}
    moments = {"mean": rows.mean(0), "std": rows.std(0), "min": rows.min(0), "max": rows.max(0), **quantiles}
    return {name: torch.from_numpy(np.atleast_1d(vector)) for name, vector in moments.items()} | {
        "count": torch.tensor([1000.0])
    }


def norm_stats_json(state: int = STATE_DIM, actions: int = ACTION_DIM) -> str:
    """A ``norm_stats.json`` of OpenPI."""
    vectors = {"state": statistics(state), "actions": statistics(actions)}
    kept = {key: {name: of[name].tolist() for name in ("mean", "std", "q01", "q99")} for key, of in vectors.items()}
    return json.dumps({"norm_stats": kept}, indent=2)


def openpi_config(**changes: Any) -> dict[str, Any]:
    """``config.json`` of OpenPI's converter."""
    own = {
        "action_dim": 32,
        "action_horizon": 20,
        "paligemma_variant": "dummy",
        "action_expert_variant": "dummy",
        "precision": "bfloat16",
    }
    return {**own, **changes}


def save_conversion(path: Path, model: Pi0, *robots: str, **changes: Any) -> Path:
    """examples/convert_jax_model_to_pytorch.py: with the assets of `robots`, as beside a JAX checkpoint."""
    path.mkdir(parents=True)
    save_model(model, str(path / "model.safetensors"))
    (path / "config.json").write_text(json.dumps(openpi_config(**changes), indent=2))
    for number, robot in enumerate(robots):
        (path / "assets" / robot).mkdir(parents=True)
        (path / "assets" / robot / "norm_stats.json").write_text(norm_stats_json(32, 32 + number))
    return path


def lerobot_config(policy: str, **changes: Any) -> dict[str, Any]:
    """``config.json`` of lerobot 0.6, without what only its training reads."""
    mode = "QUANTILES" if policy == "pi05" else "MEAN_STD"
    own = {
        "type": policy,
        "n_obs_steps": 1,
        "input_features": {
            "observation.state": {"type": "STATE", "shape": [STATE_DIM]},
            "observation.images.front": {"type": "VISUAL", "shape": [3, 64, 64]},
            "observation.images.wrist": {"type": "VISUAL", "shape": [3, 64, 64]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [ACTION_DIM]}},
        "use_peft": False,
        "pretrained_path": None,
        "paligemma_variant": "dummy",
        "action_expert_variant": "dummy",
        "dtype": "float32",
        "chunk_size": 20,
        "n_action_steps": 10,
        "max_state_dim": 32,
        "max_action_dim": 32,
        "num_inference_steps": 10,
        "use_relative_actions": False,
        "relative_exclude_joints": ["gripper"],
        "action_feature_names": None,
        "empty_cameras": 0,
        "tokenizer_max_length": 200 if policy == "pi05" else 48,
        "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": mode, "ACTION": mode},
    }
    return {**own, **changes}


def lerobot_steps(config: Mapping[str, Any], state_file: str | None) -> dict[str, Any]:
    """``policy_preprocessor.json``."""
    features = {**(config["input_features"] or {}), **(config["output_features"] or {})}
    normalizer: dict[str, Any] = {
        "registry_name": "normalizer_processor",
        "config": {"eps": 1e-08, "features": features, "norm_map": config["normalization_mapping"]},
    }
    if state_file is not None:
        normalizer["state_file"] = state_file
    relative = {"enabled": config.get("use_relative_actions", False)}
    state_prompt = {"registry_name": "pi05_prepare_state_tokenizer_processor_step", "config": {}}
    tokenizer = {
        "max_length": config["tokenizer_max_length"],
        "padding": "max_length",
        "tokenizer_name": "google/paligemma-3b-pt-224",
    }
    steps = [
        {"registry_name": "rename_observations_processor", "config": {"rename_map": {}}},
        {"registry_name": "to_batch_processor", "config": {}},
        {"registry_name": "relative_actions_processor", "config": relative},
        normalizer,
        *([state_prompt] if config["type"] == "pi05" else []),
        {"registry_name": "tokenizer_processor", "config": tokenizer},
        {"registry_name": "device_processor", "config": {"device": "cpu", "float_dtype": None}},
    ]
    return {"name": "policy_preprocessor", "steps": steps}


def save_lerobot(path: Path, model: Pi0, policy: str, *, tuned: bool = True, **changes: Any) -> Path:
    """``PreTrainedPolicy.save_pretrained`` and the processors'; statistics only where the policy was `tuned`."""
    path.mkdir(parents=True)
    config = lerobot_config(policy, **changes)
    (path / "config.json").write_text(json.dumps(config, indent=4))
    state_dict = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    embed, head = (f"model.{name}" for name in _TIED)
    save_file({name: t for name, t in state_dict.items() if name != embed}, path / "model.safetensors", {embed: head})
    before = "policy_preprocessor_step_3_normalizer_processor"
    after = "policy_postprocessor_step_0_unnormalizer_processor"
    steps = lerobot_steps(config, f"{before}.safetensors" if tuned else None)
    (path / "policy_preprocessor.json").write_text(json.dumps(steps, indent=2))
    unnormalizer = {"registry_name": "unnormalizer_processor", "config": {"eps": 1e-08}}
    if tuned:
        unnormalizer["state_file"] = f"{after}.safetensors"
        dims = {"observation.state": STATE_DIM, "action": ACTION_DIM, "timestamp": 1}
        tensors = {f"{name}.{key}": t for name, dim in dims.items() for key, t in statistics(dim).items()}
        tensors["observation.images.front.mean"] = torch.ones(3, 1, 1)
        for name in (before, after):
            save_file(tensors, path / f"{name}.safetensors")
    content = {"name": "policy_postprocessor", "steps": [unnormalizer]}
    (path / "policy_postprocessor.json").write_text(json.dumps(content, indent=2))
    return path


def without_the_unread(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state dict without what nothing reads."""
    return {name: tensor for name, tensor in state_dict.items() if name not in UNREAD}


_TIED = (
    "paligemma_with_expert.paligemma.model.language_model.embed_tokens.weight",
    "paligemma_with_expert.paligemma.lm_head.weight",
)
