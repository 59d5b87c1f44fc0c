"""Our model, transforms and prompts against OpenPI's own code (PyPI: rlinf-openpi), tiny sizes, float32.

Opt-in, in the interpreter that README makes with the extra openpi, and pytest in it (CONTRIBUTING.md, "Opt-in tests"):

    openpi-venv/bin/python -m pytest -m parity tests/rlinf_isaac/pi0/test_parity.py -s
"""

from __future__ import annotations

import io
import types

import numpy as np
import pytest
import torch
from openpi_models import openpi_model, randomise, size_openpi, training_loss

from rlinf_isaac.config.schema import GemmaConfig, ModelConfig, VisionConfig
from rlinf_isaac.data.norm_stats.normaliser import Normalizer
from rlinf_isaac.pi0.model import Pi0
from rlinf_isaac.pi0.observation import CAMERAS, Observation
from rlinf_isaac.pi0.tokenizer import SentencePieceTokenizer, pad_tokens
from rlinf_isaac.pi0.transforms import pad_last, resize_with_pad

pytestmark = pytest.mark.parity

BATCH = 4


def tiny(pi05: bool) -> ModelConfig:
    return ModelConfig(
        pi05=pi05,
        vlm=GemmaConfig(width=96, depth=4, mlp_dim=192, num_heads=8, num_kv_heads=1, head_dim=16),
        expert=GemmaConfig(width=64, depth=4, mlp_dim=128, num_heads=8, num_kv_heads=1, head_dim=16),
        vision=VisionConfig(width=64, depth=2, mlp_dim=128, num_heads=2, patch_size=8, image_size=64),
        vocab_size=512,
        action_horizon=10,
        max_token_len=48,
    )


@pytest.fixture(params=[False, True], ids=["pi0", "pi05"])
def pair(request, monkeypatch):
    """(OpenPI's model, ours with its weights, config), random weights in every parameter."""
    config = tiny(request.param)
    size_openpi(monkeypatch, config)
    upstream = openpi_model(config)
    randomise(upstream)
    ours = Pi0(config)
    ours.load_state_dict(upstream.state_dict(), strict=True)
    return upstream, ours, config


def batch(config: ModelConfig) -> tuple[Observation, types.SimpleNamespace]:
    """The same observation for us and for OpenPI: third camera masked, prompts padded to different lengths."""
    generator = torch.Generator().manual_seed(1)
    size, length = config.vision.image_size, config.max_token_len
    mask = torch.arange(length) < torch.tensor([20, 7, 48, 20])[:, None]
    ours = Observation(
        images={camera: torch.rand(BATCH, 3, size, size, generator=generator) * 2 - 1 for camera in CAMERAS},
        image_masks={camera: torch.full((BATCH,), camera != CAMERAS[2]) for camera in CAMERAS},
        state=torch.randn(BATCH, config.action_dim, generator=generator),
        prompt_tokens=torch.randint(0, config.vocab_size, (BATCH, length), generator=generator),
        prompt_mask=mask,
    )
    theirs = types.SimpleNamespace(
        images=dict(ours.images),
        image_masks=dict(ours.image_masks),
        state=ours.state,
        tokenized_prompt=ours.prompt_tokens,
        tokenized_prompt_mask=mask,
        token_ar_mask=None,
        token_loss_mask=None,
    )
    return ours, theirs


def flow(config: ModelConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    shape = (BATCH, config.action_horizon, config.action_dim)
    time = torch.rand(BATCH, generator=generator)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator), time


def test_loss_and_gradients(pair) -> None:
    upstream, ours, config = pair
    our_observation, their_observation = batch(config)
    actions, noise, time = flow(config)
    theirs = training_loss(upstream, their_observation, actions, noise, time)
    mine = ours(our_observation, actions, noise, time)
    difference = (theirs - mine).abs().max().item()

    theirs.mean().backward()
    mine.mean().backward()
    expected = dict(upstream.named_parameters())
    worst = 0.0
    for name, parameter in ours.named_parameters():
        gradient = expected[name].grad
        if parameter.grad is None:  # we do not compute what nobody reads; there OpenPI's gradient is zero, or absent
            assert gradient is None or gradient.abs().max() == 0, name
        else:
            error = (parameter.grad - gradient).abs().max() / (gradient.abs().max() + 1e-9)
            worst = max(worst, error.item())
    print(
        f"\n  loss {mine.mean():.4f}: max difference {difference:.1e}; gradients: max relative difference {worst:.1e}"
    )
    assert difference < 2e-5
    assert worst < 2e-3


def test_samples(pair) -> None:
    upstream, ours, config = pair
    our_observation, their_observation = batch(config)
    _, noise, _ = flow(config)
    upstream.eval()
    theirs = upstream.sample_actions("cpu", their_observation, noise=noise, num_steps=10)
    mine = ours.sample(our_observation, noise, num_steps=10)
    difference = (theirs - mine).abs().max().item()
    print(f"\n  samples of mean size {mine.abs().mean():.3f}: max difference {difference:.1e}")
    assert difference < 2e-5


@pytest.mark.parametrize("mode", ["zscore", "quantile"])
def test_normalisation(mode: str, norm_stats) -> None:
    transforms = pytest.importorskip("openpi.transforms")
    upstream_stats = pytest.importorskip("openpi.shared.normalize").NormStats
    fields = {}
    for name in ("state", "actions"):
        field = getattr(norm_stats, name)
        fields[name] = upstream_stats(mean=field.mean, std=field.std, q01=field.q01, q99=field.q99)
    rng = np.random.default_rng(0)
    data = {"state": rng.normal(size=8), "actions": rng.normal(size=(6, 7))}
    quantile = mode == "quantile"
    theirs = transforms.PadStatesAndActions(32)(transforms.Normalize(fields, use_quantiles=quantile)(dict(data)))
    output = {name: rng.normal(size=value.shape) for name, value in theirs.items()}
    robot = transforms.Unnormalize(fields, use_quantiles=quantile)(dict(output))
    for name, dims in (("state", 8), ("actions", 7)):
        normalizer = Normalizer.of(name, getattr(norm_stats, name), mode)
        np.testing.assert_allclose(pad_last(normalizer.normalize(data[name]), 32), theirs[name], rtol=1e-6, atol=1e-7)
        mine = normalizer.unnormalize(output[name][..., :dims])
        np.testing.assert_allclose(mine, robot[name][..., :dims], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (100, 37), (20, 31), (64, 64), (128, 128)])
def test_resize(shape: tuple[int, int]) -> None:
    image_tools = pytest.importorskip("openpi_client.image_tools")
    images = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(resize_with_pad(images, 64), image_tools.resize_with_pad(images, 64, 64))


@pytest.mark.parametrize("with_state", [False, True])
def test_prompt(with_state: bool, tmp_path, monkeypatch) -> None:
    tokenizer = pytest.importorskip("openpi.models.tokenizer")
    sentencepiece = pytest.importorskip("sentencepiece")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["stack the red block on the blue block", "Task: State: 0 1 2 3; Action: "] * 20),
        model_writer=model,
        vocab_size=300,
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    path = tmp_path / "tokenizer.model"
    path.write_bytes(model.getvalue())
    monkeypatch.setattr(tokenizer.download, "maybe_download", lambda *_, **__: path)
    state = np.array([-1.2, -1.0, -0.5, 0.0, 0.3, 0.999, 1.0, 4.0], np.float32) if with_state else None
    prompt = " Stack the red_block\non the blue block. "
    theirs, their_mask = tokenizer.PaligemmaTokenizer(max_len=200).tokenize(prompt, state)
    mine, mask = pad_tokens([SentencePieceTokenizer(path).encode(prompt, state)], max_len=200, length=200)
    np.testing.assert_array_equal(mine[0], theirs)
    np.testing.assert_array_equal(mask[0], their_mask)
