"""`sft --base` of RLinf's own pi0 as RLinf saves it: its first loss is that of RLinf's own model, in float32.

Opt-in (CONTRIBUTING.md, "Opt-in tests"): a checkout of RLinf's repository, and einops; for its saver what RLinf needs.

    RLINF_MAIN=RLinf rlinf-venv/bin/python -m pytest -m rlinf tests/mlflow_project/cli/test_sft_openpi_rlinf.py
"""

from __future__ import annotations

import copy
import shutil
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus.foreign import norm_stats_json
from first_loss import FirstStep, first_step, writer_config, writer_overrides
from openpi_models import randomise
from rlinf_models import MU, approximate_gelu, rlinf_config, rlinf_model, rlinf_modules

from rlinf_isaac.pi0.layout import UNREAD

pytestmark = pytest.mark.rlinf


@pytest.fixture(scope="module")
def rlinf():
    with rlinf_modules() as found:
        yield found


def save_training(monkeypatch: pytest.MonkeyPatch, path: Path, model: torch.nn.Module) -> Path:
    """A checkpoint by RLinf's own saver, of one process: the model is wrapped as its SFT does, and sharded."""
    fsdp2 = pytest.importorskip("rlinf.hybrid_engines.fsdp.strategy.fsdp2", exc_type=ImportError)
    from rlinf.scheduler import Worker
    from torch import distributed
    from torch.distributed.fsdp import fully_shard

    nothing = dict.fromkeys(("synchronize", "ipc_collect", "empty_cache"), lambda: None)
    platform = types.SimpleNamespace(**nothing, is_available=lambda: False)
    monkeypatch.setattr(Worker, "torch_platform", platform)  # which Ray's workers have
    path.mkdir(parents=True)
    distributed.init_process_group("gloo", init_method=f"file://{path.parent}/store", rank=0, world_size=1)
    try:
        wrapped = torch.nn.Module()
        wrapped.add_module("model", copy.deepcopy(model))
        fully_shard(wrapped, mesh=distributed.device_mesh.init_device_mesh("cpu", (1,)))
        optimiser = torch.optim.AdamW(wrapped.parameters(), lr=0.0)
        for parameter in wrapped.parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimiser.step()  # it saves the optimiser's state, too
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0)
        fsdp2.FSDP2Strategy.save_checkpoint(wrapped, optimiser, schedule, str(path / "actor"))
    finally:
        distributed.destroy_process_group()
    assert (path / "actor/dcp_checkpoint/.metadata").exists()
    return path


def save_weights(path: Path, model: torch.nn.Module) -> Path:
    """Only the weights of such a checkpoint, as RLinf writes them."""
    weights = path / "actor/model_state_dict/full_weights.pt"
    weights.parent.mkdir(parents=True)
    torch.save({f"model.{name}": tensor for name, tensor in model.state_dict().items()}, weights)
    return path


def save_converted(monkeypatch: pytest.MonkeyPatch, rlinf: Any, training: Path, output: Path, own: Any) -> Path:
    """RLinf's converter ``sft_to_openpi_rlinf`` of it; the config that it looks up by name is `own`."""
    monkeypatch.setattr(rlinf.saver, "_get_openpi_train_config", lambda name: types.SimpleNamespace(model=own))
    stats, place = training / "norm_stats.json", output / "physical-intelligence/behavior/norm_stats.json"
    stats.write_text(norm_stats_json())
    return rlinf.saver.convert(training, stats, output, place, config_name="tiny", dtype="fp32")


def loss_of(rlinf: Any, model: torch.nn.Module, step: FirstStep) -> float:
    observation = step.observation
    images = {name: image.permute(0, 2, 3, 1) / 255 * 2 - 1 for name, image in observation.images.items()}
    masks, prompt = dict(observation.image_masks), (observation.prompt_tokens, observation.prompt_mask)
    given = rlinf.model.Observation(images, masks, observation.state, *prompt)
    with torch.no_grad():
        return model.compute_loss(given, step.actions, noise=step.noise, time=step.time).mean().item()


@pytest.mark.parametrize("writer", ["saver", "saver-sharded", "converter"])
@pytest.mark.parametrize("pi05", [False, True], ids=["pi0", "pi05"])
def test_the_first_loss_is_that_of_rlinfs_model(
    invoke, store, small_dataset, tmp_path, monkeypatch, rlinf, pi05, writer
):
    """With OpenPI's GELU in RLinf's model, whose own is exact."""
    approximate_gelu(monkeypatch, rlinf)
    overrides = writer_overrides(pi05, *MU, "sft.loss_on_real_dims=false")
    own = rlinf_config(rlinf, writer_config(overrides).model)
    theirs = rlinf_model(monkeypatch, rlinf, own)
    randomise(theirs)
    base = tmp_path / "checkpoints/global_step_30"
    if writer.startswith("saver"):
        save_training(monkeypatch, base, theirs)
        if writer == "saver-sharded":
            shutil.rmtree(base / "actor/model_state_dict")  # as with save_full_model_weights: false
    else:
        base = save_converted(monkeypatch, rlinf, save_weights(base, theirs), tmp_path / "base", own)
    step = first_step(invoke, store, small_dataset, base, overrides)
    step.assert_loss(loss_of(rlinf, theirs, step), UNREAD)
