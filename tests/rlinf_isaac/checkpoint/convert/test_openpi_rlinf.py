"""RLinf's own layout of pi0 is read in every format in which RLinf writes it, with what is said of the training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed.checkpoint as dcp
from corpus.foreign import dummy_config, dummy_model, norm_stats_json
from corpus.openpi_rlinf import openpi_rlinf_config, save_openpi_rlinf, to_openpi_rlinf
from safetensors.torch import load_file, save_file

from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.foreign.make import BundleContent, find_made, make_bundle, plan_conversion
from rlinf_isaac.checkpoint.foreign.make_plan import AS_STORED
from rlinf_isaac.checkpoint.foreign.sources import find_source
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.ground.errors import BundleError, InvalidJob, WeightsError
from rlinf_isaac.pi0.layout import UNREAD
from rlinf_isaac.pi0.model import Pi0

RUN = """
actor:
  model:
    model_type: openpi_rlinf
    num_action_chunks: 20
    num_steps: 4
    pi05: false
    openpi: {model_action_dim: 32, paligemma_variant: dummy, action_expert_variant: dummy}
"""


@pytest.fixture(scope="module", params=[False, True], ids=["pi0", "pi05"])
def config(request):
    return dummy_config(request.param)


def save_trained(path: Path, model: Pi0) -> Path:
    """As RLinf's FSDP worker."""
    path = path / "checkpoints/global_step_40"
    (path / "actor/model_state_dict").mkdir(parents=True)
    tensors = {f"model.{name}": tensor for name, tensor in to_openpi_rlinf(model).items()}
    tensors["value_head.mlp.0.weight"] = torch.ones(3)
    torch.save(tensors, path / "actor/model_state_dict/full_weights.pt")
    (path / "norm_stats.json").write_text(norm_stats_json())
    return path


def save_distributed(path: Path, model: Pi0) -> Path:
    path = path / "checkpoints/global_step_40"
    (path / "actor").mkdir(parents=True)
    with pytest.warns(UserWarning, match="single process"):
        dcp.save({"fsdp_checkpoint": {"model": to_openpi_rlinf(model)}}, checkpoint_id=path / "actor/dcp_checkpoint")
    (path / "norm_stats.json").write_text(norm_stats_json())
    return path


def make(path: Path, config, output: Path) -> Bundle:
    source = find_source(path)
    conversion = plan_conversion(source, config.model, AS_STORED)
    arguments = {"asset_id": "a", "step": 40, "norm_stats": norm_stats_json().encode(), "norm_stats_record": {}}
    content = BundleContent(config=config, **arguments)
    bundle = make_bundle(conversion, content, output)
    assert find_made(conversion, content, output) == bundle
    return bundle


def holds(bundle: Bundle, config, model: Pi0) -> bool:
    loaded = Pi0(config.model)
    load_weights(bundle, loaded)
    wanted = {name: t for name, t in model.state_dict().items() if name not in UNREAD}
    found = loaded.state_dict()
    assert not found[UNREAD[0]].any()
    return all(torch.equal(found[name], tensor) for name, tensor in wanted.items())


@pytest.mark.parametrize("save", [save_openpi_rlinf, save_trained, save_distributed])
def test_a_bundle_holds_the_model_under_openpis_names(tmp_path, config, model, save):
    bundle = make(save(tmp_path / "source", model), config, tmp_path / "out/40")
    assert holds(bundle, config, model)
    assert bundle.config["source"]["layout"] == "openpi_rlinf"


def test_bfloat16_stays(tmp_path, config, model):
    half = dummy_model(config).to(torch.bfloat16)
    bundle = make(save_openpi_rlinf(tmp_path / "source", half), config, tmp_path / "out/40")
    stored = load_file(bundle.path / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}
    name = "paligemma_with_expert.gemma_expert.model.layers.1.mlp.up_proj.weight"
    assert torch.equal(stored[name], half.state_dict()[name])


def test_what_config_json_says(tmp_path, config, model):
    source = find_source(save_openpi_rlinf(tmp_path / "base", model))
    assert source.kind == "rlinf"
    assert source.asset_id == "physical-intelligence/robotwin"
    said = source.said
    pi05 = config.model.pi05
    wanted = {"model.action_horizon": 20, "model.pi05": pi05, "model.discrete_state_input": pi05, "policy.norm": "auto"}
    assert wanted.items() <= said.values.items()
    assert said.doubtful == ()


def test_the_defaults_of_the_converter_of_jax_weights_are_doubtful(tmp_path, model):
    path = save_openpi_rlinf(tmp_path / "base", model)
    values = openpi_rlinf_config(model.config.pi05)
    del values["discrete_state_input"]
    (path / "config.json").write_text(json.dumps(values))
    said = find_source(path).said
    assert set(said.doubtful) == {"model.action_horizon", "model.max_token_len"}
    assert "config.json: action_horizon 20 is what RLinf's converter was told by --action-horizon" in said.remarks[0]


def test_point_clouds_are_refused(tmp_path, config, model):
    path = save_openpi_rlinf(tmp_path / "base", model, pcd=True)
    with pytest.raises(InvalidJob) as error:
        find_source(path)
    assert error.value.problems[0].code == "checkpoint-config-unsupported"
    save_file(to_openpi_rlinf(model) | {"pointnet.fc.weight": torch.ones(2, 3)}, path / "model.safetensors")
    (path / "config.json").unlink()
    with pytest.raises(WeightsError, match=r"pointnet\.fc\.weight \[2, 3\]") as error:
        plan_conversion(find_source(path), config.model)
    assert error.value.problems[0].code == "rlinf-layout"


def test_weights_that_are_incomplete_or_of_another_model(tmp_path, config, model):
    path = save_openpi_rlinf(tmp_path / "base", model)
    tensors = to_openpi_rlinf(model)
    del tensors["img.head.bias"]
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing: .*multi_modal_projector\.linear\.bias"):
        plan_conversion(find_source(path), config.model)
    save_file(to_openpi_rlinf(dummy_model(dummy_config(not config.model.pi05))), path / "model.safetensors")
    with pytest.raises(WeightsError, match=r"config\.json: pi05 says"):
        plan_conversion(find_source(path), config.model)


def test_what_the_config_of_the_run_says(tmp_path):
    model = dummy_model(dummy_config(False))
    path = save_trained(tmp_path / "run/exp", model)
    (tmp_path / "run/tensorboard").mkdir()
    (tmp_path / "run/tensorboard/config.yaml").write_text(RUN)
    said = find_source(path).said
    wanted = {"model.pi05": False, "model.action_horizon": 20, "policy.denoise_steps": 4, "model.max_token_len": 48}
    assert wanted.items() <= said.values.items()
    assert said.values["model.vlm.width"] == 64
    (tmp_path / "run/tensorboard/config.yaml").write_text(RUN.replace("    pi05: false\n", ""))
    with pytest.raises(WeightsError, match=r"which is pi0\.5 if pi05 is not set says model\.pi05=true"):
        plan_conversion(find_source(path), dummy_config(False).model)
    (tmp_path / "run/tensorboard/config.yaml").write_text(RUN.replace("num_steps: 4", "num_steps: many"))
    with pytest.raises(BundleError, match="num_steps is 'many', not a whole number"):
        find_source(path)
