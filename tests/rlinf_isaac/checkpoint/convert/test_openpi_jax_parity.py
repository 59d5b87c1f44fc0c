"""JAX checkpoints that OpenPI's own model and orbax wrote: the loss here is that of OpenPI's JAX model, in float32.

Opt-in, in the interpreter that README makes with the extra openpi, and pytest in it (CONTRIBUTING.md, "Opt-in tests"):

    openpi-venv/bin/python -m pytest -m parity tests/rlinf_isaac/checkpoint/convert/test_openpi_jax_parity.py
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from corpus.foreign import DUMMY
from openpi_jax_models import MU, jax_model, save_released, save_state
from support import small_config

from rlinf_isaac.checkpoint.foreign.make import BundleContent, make_bundle, plan_conversion
from rlinf_isaac.checkpoint.foreign.sources import find_source
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.observation import CAMERAS, Observation

pytestmark = pytest.mark.parity

B, TOKENS = 2, 6


@pytest.fixture(params=[False, True], ids=["pi0", "pi05"])
def config(request):
    return small_config(
        [
            *DUMMY,
            *MU,
            "policy.state_layout=proprio",
            f"model.max_token_len={TOKENS}",
            f"model.pi05={str(request.param).lower()}",
        ]
    )


@pytest.fixture
def theirs(with_lora, config, monkeypatch):
    return jax_model(monkeypatch, config.model, with_lora=with_lora)


@pytest.mark.parametrize(("with_lora", "save"), [(False, save_released), (True, save_state)])
def test_the_loss_is_that_of_openpis_model(tmp_path, config, theirs, save):
    import jax
    import jax.numpy as jnp
    from openpi.models import model as openpi_model

    path = save(tmp_path, theirs)
    source = find_source(path)
    assert source.step == (7 if save is save_state else None)
    conversion = plan_conversion(source, config.model)
    arguments = {"asset_id": "cube", "step": 7, "norm_stats": source.norm_stats.read(), "norm_stats_record": {}}
    loaded = Pi0(config.model)
    load_weights(make_bundle(conversion, BundleContent(config=config, **arguments), tmp_path / "out/7"), loaded)

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
