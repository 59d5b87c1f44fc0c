"""JAX checkpoints that OpenPI's own model and orbax wrote: the loss here is that of OpenPI's JAX model, in float32.

Opt-in, in the interpreter that README makes with the extra openpi, and pytest in it (CONTRIBUTING.md, "Opt-in tests"):

    openpi-venv/bin/python -m pytest -m parity tests/rlinf_isaac/checkpoint/layouts
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus.foreign import DUMMY, norm_stats_json
from support import small_config

from rlinf_isaac.checkpoint.make import make_bundle, plan_conversion
from rlinf_isaac.checkpoint.sources import find_source
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.observation import CAMERAS, Observation

pytestmark = pytest.mark.parity

# OpenPI's vision tower "mu" on 224 pixels; its vocabulary is fixed.
_VISION = {"width": 32, "depth": 1, "mlp_dim": 128, "patch_size": 14, "num_heads": 2, "image_size": 224}
MU = [*(f"model.vision.{name}={size}" for name, size in _VISION.items()), "model.vocab_size=257152"]
B, TOKENS = 2, 6


@pytest.fixture(params=[False, True], ids=["pi0", "pi05"])
def config(request):
    return small_config([*DUMMY, *MU, "policy.state_layout=proprio", f"model.pi05={str(request.param).lower()}"])


@pytest.fixture
def theirs(with_lora, config, monkeypatch):
    """OpenPI's JAX model with random values in every array, and with its adapters in both Gemmas if that is asked."""
    jax = pytest.importorskip("jax")
    pi0_config = pytest.importorskip("openpi.models.pi0_config")
    from flax import nnx
    from openpi.models import gemma, lora, pi0

    tower, variant = pi0._siglip.Module, gemma.get_config
    monkeypatch.setattr(pi0._siglip, "Module", lambda **given: tower(**{**given, "variant": "mu/14"}))
    if with_lora:
        adapters = {"attn": lora.LoRAConfig(rank=4, alpha=4.0), "ffn": lora.LoRAConfig(rank=4, alpha=4.0)}
        tuned = dataclasses.replace(variant("dummy"), lora_configs=adapters)
        monkeypatch.setattr(pi0._gemma, "get_config", lambda name: tuned)
    own = pi0_config.Pi0Config(
        dtype="float32",
        paligemma_variant="dummy",
        action_expert_variant="dummy",
        action_dim=config.model.action_dim,
        action_horizon=config.model.action_horizon,
        max_token_len=TOKENS,
        pi05=config.model.pi05,
    )
    model = own.create(jax.random.key(0))
    graph, state = nnx.split(model)
    values = np.random.default_rng(0)
    state = jax.tree.map(lambda x: x + np.asarray(values.normal(0, 0.02, x.shape), x.dtype), state)
    return nnx.merge(graph, state)


def save_state(path: Path, model) -> Path:
    """As OpenPI's training saves a step (training/checkpoints.py)."""
    import orbax.checkpoint as ocp
    from flax import nnx

    manager = ocp.CheckpointManager(path, item_handlers={"params": ocp.PyTreeCheckpointHandler()})
    manager.save(7, {"params": {"params": nnx.state(model)}})
    manager.wait_until_finished()
    (path / "7/assets/cube").mkdir(parents=True)
    return path / "7"


def save_released(path: Path, model) -> Path:
    """As the released bases are: a plain tree."""
    import orbax.checkpoint as ocp
    from flax import nnx

    with ocp.PyTreeCheckpointer() as checkpointer:
        checkpointer.save(path / "base/params", {"params": nnx.state(model).to_pure_dict()})
    (path / "base/assets/cube").mkdir(parents=True)
    return path / "base"


@pytest.mark.parametrize(("with_lora", "save"), [(False, save_released), (True, save_state)])
def test_the_loss_is_that_of_openpis_model(tmp_path, config, theirs, save):
    import jax
    import jax.numpy as jnp
    from openpi.models import model as openpi_model

    path = save(tmp_path, theirs)
    (path / "assets/cube/norm_stats.json").write_text(norm_stats_json(32, 32))
    source = find_source(path)
    assert source.step == (7 if save is save_state else None)
    conversion = plan_conversion(source, config.model)
    arguments = {"asset_id": "cube", "step": 7, "norm_stats": source.norm_stats.read(), "norm_stats_record": {}}
    loaded = Pi0(config.model)
    load_weights(make_bundle(conversion, config, tmp_path / "out/7", **arguments), loaded)

    random = np.random.default_rng(1)
    images = {camera: random.uniform(-1, 1, (B, 224, 224, 3)).astype("f4") for camera in CAMERAS}
    present = {camera: np.array([True, camera != CAMERAS[2]]) for camera in CAMERAS}
    tokens = random.integers(0, 1000, (B, TOKENS))
    valid = np.array([[True] * 6, [True] * 4 + [False] * 2])
    state = random.normal(size=(B, config.model.action_dim)).astype("f4")
    actions = random.normal(size=(B, config.model.action_horizon, config.model.action_dim)).astype("f4")

    # The noise and the times that OpenPI's model draws of this key.
    key = jax.random.key(3)
    _, noise_key, time_key = jax.random.split(key, 3)
    noise = np.array(jax.random.normal(noise_key, actions.shape))
    time = np.array(jax.random.beta(time_key, 1.5, 1, (B,)) * 0.999 + 0.001)
    given = openpi_model.Observation(
        images={name: jnp.asarray(image) for name, image in images.items()},
        image_masks={name: jnp.asarray(mask) for name, mask in present.items()},
        state=jnp.asarray(state),
        tokenized_prompt=jnp.asarray(tokens, jnp.int32),
        tokenized_prompt_mask=jnp.asarray(valid),
    )
    with jax.default_matmul_precision("highest"):
        wanted = np.array(theirs.compute_loss(key, given, jnp.asarray(actions), train=False))
    observation = Observation(
        {name: torch.from_numpy(image).permute(0, 3, 1, 2).contiguous() for name, image in images.items()},
        {name: torch.from_numpy(mask) for name, mask in present.items()},
        torch.from_numpy(state),
        torch.from_numpy(tokens),
        torch.from_numpy(valid),
    )
    with torch.no_grad():
        found = loaded(observation, *map(torch.from_numpy, (actions, noise, time))).mean(-1).numpy()
    assert wanted.std() > 0
    np.testing.assert_allclose(found.mean(), wanted.mean(), rtol=1e-5)
    # OpenPI computes the sine of times in float32, which differs for single steps.
    np.testing.assert_allclose(found, wanted, rtol=5e-5)
