"""RLinf's ``global_step_N`` as a bundle, without RLinf."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import small_config

from rlinf_isaac.checkpoint.description import foreign_config
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.engines.rlinf.bundles import TRAINING_STATE, WEIGHTS, find_checkpoints, make_bundle_of
from rlinf_isaac.ground.errors import WeightsError
from rlinf_isaac.pi0.model import Pi0, initialise

NORM_STATS = b'{"norm_stats": {"state": {"mean": [0.5], "std": [2.0]}, "actions": {"mean": [0.0], "std": [1.0]}}}'


@pytest.fixture
def model() -> Pi0:
    model = Pi0(small_config().model)
    initialise(model, 0)
    return model


@pytest.fixture
def checkpoint(tmp_path, model) -> Path:
    directory = tmp_path / "results" / "run" / "checkpoints" / "global_step_40"
    for file in (WEIGHTS, TRAINING_STATE):
        (directory / file).parent.mkdir(parents=True)
    (directory / TRAINING_STATE).touch()
    wrapped = {f"_fsdp_wrapped_module.{name}": tensor for name, tensor in model.state_dict().items()}
    torch.save({**wrapped, "_fsdp_wrapped_module.value_head.weight": torch.ones(2, 3)}, directory / WEIGHTS)
    return directory


def make(checkpoint: Path, path: Path):
    return make_bundle_of(
        checkpoint,
        path,
        model=small_config().model,
        config=foreign_config(small_config()),
        norm_stats=NORM_STATS,
        asset_id="RLinf/IsaacLab-Stack-Cube-Data",
        step=40,
        lineage={"dataset": "d" * 64, "parent": None},
    )


def test_the_weights_and_the_value_head_are_sealed(checkpoint, model, tmp_path):
    assert find_checkpoints(tmp_path / "results") == {40: checkpoint}
    bundle = make(checkpoint, tmp_path / "40")
    loaded = Pi0(small_config().model)
    load_weights(bundle, loaded, optional=("value_head.",))
    assert all(map(torch.equal, loaded.state_dict().values(), model.state_dict().values()))
    assert b'"value_head.weight"' in (bundle.path / "model.safetensors").read_bytes()


def test_a_flipped_byte_is_no_bundle(checkpoint, model, tmp_path):
    data = bytearray((checkpoint / WEIGHTS).read_bytes())
    data[data.index(model.state_dict()["state_proj.weight"].numpy().tobytes())] ^= 1
    (checkpoint / WEIGHTS).write_bytes(data)
    with pytest.raises(WeightsError, match="damaged-torch-file"):
        make(checkpoint, tmp_path / "40")
    assert not (tmp_path / "40").exists()
