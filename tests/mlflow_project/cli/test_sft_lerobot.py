"""`sft --base` of policies that lerobot's own ``save_pretrained`` wrote: its first loss is that of lerobot's own model.

Opt-in (CONTRIBUTING.md, "Opt-in tests"), in float32; with lerobot 0.4.4 or 0.6.1, each in an environment of its own:

    lerobot-venv/bin/python -m pytest -m lerobot tests/mlflow_project/cli/test_sft_lerobot.py
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from first_loss import FirstStep, first_step, writer_config, writer_overrides
from lerobot_policies import VIEWS, module, policy_config, save_policy, size_lerobot
from openpi_models import randomise

pytestmark = pytest.mark.lerobot
pytest.importorskip("lerobot")
pytest.importorskip("transformers")  # of which its pi0 and pi05 are made


def loss_of(policy: Any, step: FirstStep, monkeypatch: pytest.MonkeyPatch) -> float:
    """What lerobot's training minimises, for the frames, the noise and the times of a step."""
    monkeypatch.setattr(policy.model, "sample_noise", lambda shape, device: step.noise)
    monkeypatch.setattr(policy.model, "sample_time", lambda size, device: step.time)
    observation = step.observation
    images = {f"observation.images.{view}": observation.images[camera] / 255 for view, camera in VIEWS.items()}
    assert all(image.dtype == torch.float32 for image in images.values())
    prompt = {
        "observation.language.tokens": observation.prompt_tokens,
        "observation.language.attention_mask": observation.prompt_mask,
    }
    with torch.no_grad():
        loss, _ = policy.forward({**images, **prompt, "observation.state": observation.state, "action": step.actions})
    return loss.item()


@pytest.mark.parametrize("kind", ["pi0", "pi05"])
def test_the_first_loss_is_that_of_lerobots_model(invoke, store, small_dataset, tmp_path, monkeypatch, kind):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    overrides = writer_overrides(kind == "pi05")
    model = writer_config(overrides).model
    size_lerobot(monkeypatch, kind, model)
    horizon = {"chunk_size": model.action_horizon, "n_action_steps": model.action_horizon}
    sizes = {"image_resolution": (model.vision.image_size,) * 2, "tokenizer_max_length": model.max_token_len}
    policy = getattr(module(kind, "modeling"), f"{kind.upper()}Policy")(policy_config(kind, **horizon, **sizes))
    randomise(policy)
    base = save_policy(monkeypatch, kind, policy, tmp_path / "checkpoints/000030/pretrained_model")
    step = first_step(invoke, store, small_dataset, base, overrides)
    step.assert_loss(loss_of(policy, step, monkeypatch))
