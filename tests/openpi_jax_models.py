"""OpenPI's own JAX model (PyPI: rlinf-openpi) at sizes that fit into a test, and how OpenPI saves it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus.foreign import norm_stats_json

from rlinf_isaac.config.schema import ModelConfig

# OpenPI's vision tower "mu" on 224 pixels; its vocabulary is fixed.
_VISION = {"width": 32, "depth": 1, "mlp_dim": 128, "patch_size": 14, "num_heads": 2, "image_size": 224}
MU = [*(f"model.vision.{name}={size}" for name, size in _VISION.items()), "model.vocab_size=257152"]
"""Overrides that give a job this vision tower and this vocabulary."""


def jax_config(config: ModelConfig) -> Any:
    """OpenPI's ``Pi0Config`` of Gemmas of the variant ``dummy``, in float32."""
    from openpi.models.pi0_config import Pi0Config

    variants = {"paligemma_variant": "dummy", "action_expert_variant": "dummy", "dtype": "float32"}
    names = ("action_dim", "action_horizon", "max_token_len", "pi05")
    return Pi0Config(**variants, **{name: getattr(config, name) for name in names})


def jax_model(monkeypatch: pytest.MonkeyPatch, config: ModelConfig, *, with_lora: bool = False) -> Any:
    """OpenPI's JAX model with random values in every array, and with its adapters in both Gemmas if that is asked."""
    jax = pytest.importorskip("jax")
    pi0 = pytest.importorskip("openpi.models.pi0")
    from flax import nnx
    from openpi.models import gemma, lora

    tower, variant = pi0._siglip.Module, gemma.get_config
    monkeypatch.setattr(pi0._siglip, "Module", lambda **given: tower(**{**given, "variant": "mu/14"}))
    if with_lora:
        adapters = {"attn": lora.LoRAConfig(rank=4, alpha=4.0), "ffn": lora.LoRAConfig(rank=4, alpha=4.0)}
        tuned = dataclasses.replace(variant("dummy"), lora_configs=adapters)
        monkeypatch.setattr(pi0._gemma, "get_config", lambda name: tuned)
    graph, state = nnx.split(jax_config(config).create(jax.random.key(0)))
    values = np.random.default_rng(0)
    state = jax.tree.map(lambda x: x + np.asarray(values.normal(0, 0.02, x.shape), x.dtype), state)
    return nnx.merge(graph, state)


def save_state(path: Path, model: Any) -> Path:
    """As OpenPI's training saves a step (training/checkpoints.py)."""
    import orbax.checkpoint as ocp
    from flax import nnx

    manager = ocp.CheckpointManager(path, item_handlers={"params": ocp.PyTreeCheckpointHandler()})
    manager.save(7, {"params": {"params": nnx.state(model)}})
    manager.wait_until_finished()
    return _with_assets(path / "7")


def save_released(path: Path, model: Any) -> Path:
    """As the released bases are: a plain tree."""
    import orbax.checkpoint as ocp
    from flax import nnx

    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path / "base/params", {"params": nnx.state(model).to_pure_dict()})
    return _with_assets(path / "base")


def _with_assets(path: Path) -> Path:
    (path / "assets/cube").mkdir(parents=True)
    (path / "assets/cube/norm_stats.json").write_text(norm_stats_json(32, 32))
    return path
