"""The data configs that the extension adds to RLinf's, with the real OpenPI (rlinf-openpi) and RLinf.

Opt-in, in the interpreter with the extras openpi and ray, and RLinf without what it lists (CONTRIBUTING.md, "Opt-in
tests"):

    openpi-venv/bin/python -m pytest -m parity tests/rlinf_isaac/engines/rlinf/worker/test_openpi_configs.py
"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from rlinf_isaac.engines.rlinf.worker.openpi_configs import PI0, PI05, register_openpi_configs

ASSET_ID = "RLinf/IsaacLab-Stack-Cube-Data"


def test_without_openpi_nothing_happens(monkeypatch):
    monkeypatch.setitem(sys.modules, "openpi", None)  # cannot be imported
    register_openpi_configs()


@pytest.fixture(scope="module")
def dataconfig():
    pytest.importorskip("openpi.training.config")
    module = pytest.importorskip("rlinf.models.embodiment.openpi.dataconfig")
    assert PI0 not in module._CONFIGS_DICT, "RLinf has one now"
    register_openpi_configs()
    return module


@pytest.fixture
def model_path(tmp_path) -> Path:
    """A model's directory with norm stats where RLinf looks for them."""
    rising = np.arange(1.0, 9.0)
    stats = {"mean": rising, "std": rising / 4, "q01": -rising, "q99": rising}
    names = {"state": 8, "actions": 7}
    content = {name: {key: value[:size].tolist() for key, value in stats.items()} for name, size in names.items()}
    path = tmp_path / ASSET_ID / "norm_stats.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"norm_stats": content}))
    return tmp_path


@pytest.mark.parity
def test_it_is_rlinfs_config_with_the_other_model(dataconfig):
    pi0, pi05 = dataconfig._CONFIGS_DICT[PI0], dataconfig._CONFIGS_DICT[PI05]
    different = {field.name for field in fields(pi0) if getattr(pi0, field.name) != getattr(pi05, field.name)}
    assert different == {"name", "model", "weight_loader", "pytorch_weight_path"}
    assert (pi0.model.pi05, pi0.model.action_horizon, pi0.model.max_token_len) == (False, 50, 48)
    register_openpi_configs()
    assert dataconfig._CONFIGS_DICT[PI0] is pi0


@pytest.mark.parity
def test_rlinf_makes_its_transforms_of_it(dataconfig, model_path, monkeypatch):
    """As `rlinf.models.embodiment.openpi.get_model` does. PaliGemma's tokenizer would be downloaded."""
    import openpi.training.config as openpi_config
    from openpi import transforms

    monkeypatch.setattr(openpi_config._tokenizer, "PaligemmaTokenizer", lambda max_len: None)
    config = dataconfig.get_openpi_config(PI0, model_path=str(model_path))
    data = config.data.create(Path(config.assets_dirs), config.model)
    assert data.asset_id == ASSET_ID
    assert not data.use_quantile_norm
    assert set(data.norm_stats) == {"state", "actions"}

    image = np.zeros((64, 64, 3), np.uint8)
    sample = {
        "observation.images.front": image,
        "observation.images.wrist": image,
        "observation.state": np.arange(1.0, 9.0),
        "action": np.tile(np.arange(1.0, 8.0), (50, 1)),
    }
    for transform in (*data.repack_transforms.inputs, *data.data_transforms.inputs):
        sample = transform(sample)
    sample = transforms.Normalize(data.norm_stats, use_quantiles=False)(sample)
    assert sample["state"] == pytest.approx(0, abs=1e-6)
    assert sample["actions"] == pytest.approx(0, abs=1e-6)
    assert config.model.inputs_spec()[1].shape[1:] == (50, 32)
