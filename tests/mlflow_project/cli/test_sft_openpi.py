"""`sft --base` of what OpenPI's PyTorch code saves: its first loss is that of OpenPI's own model, in float32.

Opt-in, in the interpreter that README makes with the extra openpi, and pytest in it (CONTRIBUTING.md, "Opt-in tests"):

    openpi-venv/bin/python -m pytest -m parity tests/mlflow_project/cli/test_sft_openpi.py
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from corpus.foreign import norm_stats_json, openpi_config
from first_loss import FirstStep, first_step, writer_config, writer_overrides
from openpi_models import openpi_model, openpi_observation, randomise, size_openpi, training_loss

pytestmark = pytest.mark.parity
pytest.importorskip("openpi.models_pytorch.pi0_pytorch")


@pytest.fixture(params=[False, True], ids=["pi0", "pi05"])
def overrides(request) -> list[str]:
    """OpenPI's loss is that of all dims of an action, padded ones too (scripts/train_pytorch.py)."""
    return writer_overrides(request.param, "sft.loss_on_real_dims=false")


@pytest.fixture
def theirs(overrides, monkeypatch) -> torch.nn.Module:
    config = writer_config(overrides).model
    size_openpi(monkeypatch, config)
    model = openpi_model(config)
    randomise(model)
    return model


def save_as_the_converter(path: Path, model: torch.nn.Module, horizon: int) -> Path:
    """The last lines of examples/convert_jax_model_to_pytorch.py, which rlinf-openpi leaves out."""
    import safetensors.torch

    path.mkdir()
    safetensors.torch.save_model(model, str(path / "model.safetensors"))
    (path / "assets/cube").mkdir(parents=True)
    (path / "assets/cube/norm_stats.json").write_text(norm_stats_json())
    (path / "config.json").write_text(json.dumps(openpi_config(action_horizon=horizon, precision="float32"), indent=2))
    return path


def loss_of(model: torch.nn.Module, step: FirstStep) -> float:
    observation = openpi_observation(step.observation)
    return training_loss(model, observation, step.actions, step.noise, step.time).mean().item()


def test_the_first_loss_is_that_of_openpis_model(invoke, store, small_dataset, tmp_path, overrides, theirs):
    base = save_as_the_converter(tmp_path / "base", theirs, writer_config(overrides).model.action_horizon)
    step = first_step(invoke, store, small_dataset, base, overrides)
    step.assert_loss(loss_of(theirs, step))
