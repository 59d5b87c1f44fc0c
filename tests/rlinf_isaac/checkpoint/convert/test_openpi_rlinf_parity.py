"""The layout of RLinf's own pi0 against RLinf's modules and converter, from a checkout of its repository.

    RLINF_MAIN=RLinf python -m pytest -m rlinf tests/rlinf_isaac/checkpoint/convert/test_openpi_rlinf_parity.py

Only the model and the converter are imported, which need torch, numpy and einops; neither Ray nor OpenPI.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from corpus.foreign import DUMMY
from corpus.openpi_rlinf import save_openpi_rlinf, to_openpi_rlinf
from rlinf_models import MU, approximate_gelu, rlinf_config, rlinf_model, rlinf_modules
from safetensors.torch import load_file, save_file
from support import small_config

from rlinf_isaac.checkpoint.foreign.make import BundleContent, make_bundle, plan_conversion
from rlinf_isaac.checkpoint.foreign.sources import find_source
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.pi0.layout import TIED, UNREAD
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.observation import Observation

pytestmark = pytest.mark.rlinf

CAMERAS = ("base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb")
B, TOKENS = 2, 6


@pytest.fixture(scope="module")
def rlinf():
    with rlinf_modules() as found:
        yield found


@pytest.fixture(params=[False, True], ids=["pi0", "pi05"])
def config(request):
    return small_config([*DUMMY, *MU, "policy.state_layout=proprio", f"model.pi05={str(request.param).lower()}"])


@pytest.fixture
def ours(config) -> Pi0:
    model = Pi0(config.model)
    initialise(model, seed=3)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.02)
    return model


@pytest.fixture
def theirs(rlinf, config, monkeypatch):
    return rlinf_model(monkeypatch, rlinf, rlinf_config(rlinf, config.model, max_token_len=TOKENS))


def test_names_and_shapes_are_those_of_rlinfs_model(ours, theirs):
    """Strictly: nothing missing, nothing over."""
    theirs.load_state_dict(to_openpi_rlinf(ours))


def test_the_weights_are_those_of_rlinfs_converter(tmp_path, rlinf, config, theirs):
    saved = {name: torch.randn_like(tensor) for name, tensor in theirs.state_dict().items()}
    path = save_openpi_rlinf(tmp_path / "base", Pi0(config.model))
    save_file(saved, path / "model.safetensors")
    wanted = rlinf.converter.new_to_old_state_dict(saved, action_expert_uses_adarms=config.model.pi05)
    stored = load_file(made(path, config, tmp_path / "out/0").path / "model.safetensors")
    assert stored.keys() == wanted.keys() | set(UNREAD)
    assert TIED[0][1] in stored
    assert all(torch.equal(stored[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("gelu", ["tanh", "none"])
def test_the_loss_is_that_of_rlinfs_model(tmp_path, rlinf, config, ours, theirs, monkeypatch, gelu):
    """To 1e-5 with OpenPI's GELU, the tanh approximation; RLinf's model has the exact one and differs by that."""
    if gelu == "tanh":
        approximate_gelu(monkeypatch, rlinf)
    theirs.load_state_dict(to_openpi_rlinf(ours))
    loaded = Pi0(config.model)
    load_weights(made(save_openpi_rlinf(tmp_path / "base", ours), config, tmp_path / "out/0"), loaded)

    random = torch.Generator().manual_seed(0)
    images = {camera: torch.rand(B, 224, 224, 3, generator=random) * 2 - 1 for camera in CAMERAS}
    present = {camera: torch.tensor([True, camera != CAMERAS[2]]) for camera in CAMERAS}
    tokens = torch.randint(0, 1000, (B, TOKENS), generator=random)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    state = torch.randn(B, config.model.action_dim, generator=random)
    shape = (B, config.model.action_horizon, config.model.action_dim)
    actions, noise = torch.randn(shape, generator=random), torch.randn(shape, generator=random)
    time = torch.tensor([0.3, 0.9])
    with torch.no_grad():
        observation = rlinf.model.Observation(dict(images), dict(present), state, tokens, valid)
        wanted = theirs.compute_loss(observation, actions, noise=noise, time=time)
        channels_first = {camera: image.permute(0, 3, 1, 2).contiguous() for camera, image in images.items()}
        found = loaded(Observation(channels_first, present, state, tokens, valid), actions, noise, time).mean(-1)
    assert wanted.std() > 0
    torch.testing.assert_close(found, wanted, rtol=1e-5 if gelu == "tanh" else 5e-3, atol=0)


def made(path: Path, config, output: Path):
    source = find_source(path)
    stats = source.norm_stats.read()
    conversion = plan_conversion(source, config.model)
    content = BundleContent(config=config, asset_id="a", step=0, norm_stats=stats, norm_stats_record={})
    return make_bundle(conversion, content, output)
