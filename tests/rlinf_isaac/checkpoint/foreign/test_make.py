"""Real checkpoints of a small pi0 in every layout that OpenPI, RLinf and torch write, made into bundles."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed.checkpoint as dcp
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file, save_model
from support import small_config

from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.description import config_digest, foreign_config
from rlinf_isaac.checkpoint.foreign.make import AS_STORED, BundleContent, fitting_presets, make_bundle, plan_conversion
from rlinf_isaac.checkpoint.foreign.sources import find_source
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.checkpoint.write_bundle import seal
from rlinf_isaac.config import load_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.norm_stats import FeatureStats, NormStats
from rlinf_isaac.engines.policies import load_policy
from rlinf_isaac.ground.digest import bytes_digest, file_digest
from rlinf_isaac.ground.errors import BundleError, WeightsError
from rlinf_isaac.pi0.layout import TIED
from rlinf_isaac.pi0.model import Pi0, initialise

EMBED, HEAD = TIED[0]
RECORD = {"origin": "norm_stats.json", "mode": "none"}


def stats(state_dim: int = 23) -> bytes:
    def feature(dim: int) -> FeatureStats:
        return FeatureStats(np.zeros(dim), np.ones(dim), -np.ones(dim), np.ones(dim))

    return NormStats(feature(state_dim), feature(7)).to_json().encode()


@pytest.fixture(scope="module", params=[False, True], ids=["pi0", "pi05"])
def config(request) -> JobConfig:
    return small_config([f"model.pi05={str(request.param).lower()}"])


@pytest.fixture(scope="module")
def model(config) -> Pi0:
    model = Pi0(config.model)
    initialise(model, seed=3)
    return model


def save_openpi(root: Path, model: Pi0) -> Path:
    """As OpenPI's train_pytorch.py."""
    path = root / "30000"
    (path / "assets" / "cube").mkdir(parents=True)
    save_model(model, str(path / "model.safetensors"))
    torch.save({"global_step": 30000}, path / "metadata.pt")
    (path / "assets" / "cube" / "norm_stats.json").write_bytes(stats())
    return path


def save_rlinf(root: Path, model: Pi0, prefix: str = "") -> Path:
    """As RLinf's FSDP worker, the norm stats copied in by hand."""
    path = root / "exp" / "checkpoints" / "global_step_30000"
    (path / "actor" / "model_state_dict").mkdir(parents=True)
    state_dict = {prefix + name: tensor for name, tensor in model.state_dict().items()}
    torch.save(state_dict, path / "actor" / "model_state_dict" / "full_weights.pt")
    (path / "cube").mkdir()
    (path / "cube" / "norm_stats.json").write_bytes(stats())
    return path


def save_rlinf_wrapped(root: Path, model: Pi0) -> Path:
    return save_rlinf(root, model, "module._fsdp_wrapped_module._orig_mod.")


def save_dcp(root: Path, model: Pi0) -> Path:
    """Only the distributed checkpoint, with the optimiser in it."""
    path = save_rlinf(root, model)
    (path / "actor" / "model_state_dict" / "full_weights.pt").unlink()
    optimiser = {"state": {name: {"exp_avg": torch.zeros_like(p)} for name, p in model.named_parameters()}}
    state = {"fsdp_checkpoint": {"model": model.state_dict(), "optimizers": optimiser}}
    with pytest.warns(UserWarning, match="single process"):
        dcp.save(state, checkpoint_id=path / "actor" / "dcp_checkpoint")
    return path


def save_shards(root: Path, model: Pi0) -> Path:
    """As a model directory on the hub, with RLinf's place for the norm stats."""
    path = root / "30000"
    (path / "cube").mkdir(parents=True)
    save_torch_state_dict(model.state_dict(), path, max_shard_size="100KB")
    (path / "cube" / "norm_stats.json").write_bytes(stats())
    assert len(list(path.glob("*.safetensors"))) > 3
    return path


def save_separate(root: Path, model: Pi0) -> Path:
    """Both names of the tied embedding stored, with a wrapper's prefix."""
    path = root / "30000"
    (path / "cube").mkdir(parents=True)
    tensors = {f"model.{name}": tensor.clone() for name, tensor in model.state_dict().items()}
    save_file(tensors, path / "weights.safetensors")
    (path / "cube" / "norm_stats.json").write_bytes(stats())
    return path


LAYOUTS = [save_openpi, save_rlinf, save_rlinf_wrapped, save_dcp, save_shards, save_separate]


def make(path: Path, config: JobConfig, output: Path, exclude: tuple[str, ...] = (), **changes) -> Bundle:
    source = find_source(path)
    overwrite = changes.pop("overwrite", False)
    arguments = {
        "config": config,
        "asset_id": source.asset_id,
        "step": source.step,
        "norm_stats": source.norm_stats.path.read_bytes(),
        "norm_stats_record": RECORD,
        **changes,
    }
    conversion = plan_conversion(source, config.model, replace(AS_STORED, exclude=exclude))
    return make_bundle(conversion, BundleContent(**arguments), output, overwrite=overwrite)


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("save", LAYOUTS)
def test_the_bundle_holds_the_model_and_what_it_came_from(tmp_path, config, model, save: Callable[..., Path]):
    path = save(tmp_path / "source", model)
    bundle = make(path, config, tmp_path / "out" / "30000")
    assert bundle == read_bundle(tmp_path / "out" / "30000")
    loaded = Pi0(config.model)
    load_weights(bundle, loaded)
    assert same(loaded.state_dict(), model.state_dict())
    assert bundle.manifest.tied == {EMBED: HEAD}
    assert (bundle.step, bundle.asset_id) == (30000, "cube")
    assert bundle.lineage == {
        "config": config_digest(config),
        "dataset": None,
        "norm_stats": bytes_digest(stats()),
        "parent": None,
    }
    origin = bundle.config.pop("source")
    assert bundle.config.pop("norm_stats") == RECORD
    assert bundle.config == json.loads(json.dumps(foreign_config(config)))
    assert origin["files"] == {name: file_digest(path / name) for name in origin["files"]}
    assert origin["excluded"] == []


@pytest.mark.parametrize("save", [save_openpi, save_shards])
def test_files_that_need_no_change_are_copied_byte_for_byte(tmp_path, config, model, save):
    path = save(tmp_path / "source", model)
    bundle = make(path, config, tmp_path / "30000")
    names = {file.name for file in path.glob("model*")}
    assert names == {file.name for file in bundle.path.glob("model*")}
    assert all((path / name).read_bytes() == (bundle.path / name).read_bytes() for name in names)
    assert not plan_conversion(find_source(path), config.model).source.notes


def test_equal_sources_give_equal_bundles_wherever_they_lie(tmp_path, config, model):
    bundles = [make(save_rlinf(tmp_path / name, model), config, tmp_path / name / "out") for name in ("a", "b")]
    assert bundles[0].digest == bundles[1].digest


def test_the_policy_of_a_made_bundle_acts(tmp_path, config, model):
    bundle = make(save_rlinf(tmp_path, model), config, tmp_path / "out")
    policy = load_policy(bundle, config)
    images = {camera: np.zeros((1, 64, 64, 3), np.uint8) for camera in ("base_0_rgb", "left_wrist_0_rgb")}
    observation = policy.processor.observation(images, np.zeros((1, 23), np.float32), ["Stack."])
    noise = torch.zeros(1, config.model.action_horizon, config.model.action_dim)
    assert model.eval().sample(observation, noise, 2).equal(policy.model.sample(observation, noise, 2))


def test_a_dataset_is_named_in_the_lineage(tmp_path, small_dataset):
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset

    config = small_config()
    model, dataset = Pi0(config.model), LeRobotDataset(small_dataset)
    initialise(model, 0)
    bundle = make(save_openpi(tmp_path, model), config, tmp_path / "out", dataset=dataset)
    assert bundle.lineage["dataset"] == dataset.digest
    assert bundle.config["env"] == dataset.provenance["env"]


class TestABundleOfABundle:
    """To give a checkpoint other norm stats, for instance: the parent stays named."""

    def test_its_parent_is_named(self, tmp_path, config, model):
        first = make(save_rlinf(tmp_path, model), config, tmp_path / "first" / "30000")
        other = stats(state_dim=8)
        second = make(first.path, config, tmp_path / "second" / "30000", norm_stats=other)
        assert second.lineage["parent"] == first.digest
        assert second.norm_stats_bytes == other
        assert second.weights_digest == first.weights_digest
        assert second.manifest.tied == first.manifest.tied

    def test_a_flipped_byte_is_noticed(self, tmp_path, config, model):
        path = make(save_rlinf(tmp_path, model), config, tmp_path / "first" / "30000").path
        whole = bytearray((path / "model.safetensors").read_bytes())
        whole[-1] ^= 1
        (path / "model.safetensors").write_bytes(whole)
        with pytest.raises(BundleError, match="sha256 differs"):
            make(path, config, tmp_path / "second")


class TestExclude:
    """RL checkpoints carry a value head that pi0 does not have."""

    @staticmethod
    def save(root: Path, model: Pi0, prefix: str = "") -> Path:
        path = save_rlinf(root, model, prefix)
        file = path / "actor" / "model_state_dict" / "full_weights.pt"
        state_dict = torch.load(file)
        state_dict |= {f"{prefix}value_head.mlp.{i}.weight": torch.ones(2) for i in (0, 2)}
        torch.save(state_dict, file)
        return path

    @pytest.mark.parametrize("prefix", ["", "module."])
    @pytest.mark.parametrize("exclude", [(), ("value_head.*",)])
    def test_left_out_by_itself_or_when_asked(self, tmp_path, config, model, prefix, exclude):
        path = self.save(tmp_path, model, prefix)
        bundle = make(path, config, tmp_path / "out", exclude)
        names = [f"{prefix}value_head.mlp.{i}.weight" for i in (0, 2)]
        assert bundle.config["source"]["excluded"] == names
        assert bundle.config["source"]["stripped"] == ([prefix.removesuffix(".")] if prefix else [])
        loaded = Pi0(config.model)
        load_weights(bundle, loaded)
        assert same(loaded.state_dict(), model.state_dict())

    def test_from_safetensors(self, tmp_path, config, model):
        path = save_openpi(tmp_path, model)
        tensors = load_file(path / "model.safetensors") | {"value_head.weight": torch.ones(1)}
        save_file(tensors, path / "model.safetensors")
        bundle = make(path, config, tmp_path / "out")
        assert "value_head.weight" not in load_file(bundle.path / "model.safetensors")

    def test_anything_else_stays_and_does_not_fit(self, tmp_path, config, model):
        path = save_openpi(tmp_path, model)
        tensors = load_file(path / "model.safetensors") | {"value_head_2.weight": torch.ones(1)}
        save_file(tensors, path / "model.safetensors")
        with pytest.raises(WeightsError, match=r"1 unexpected: value_head_2\.weight"):
            make(path, config, tmp_path / "out")
        make(path, config, tmp_path / "out", ("value_head_2.*",))

    def test_an_optimiser_that_hides_the_models_prefix(self, tmp_path, config, model):
        path = tmp_path / "train.pt"
        optimiser = {f"{i}": {"exp_avg": torch.ones(1), "exp_avg_sq": torch.ones(1)} for i in range(2000)}
        torch.save({"model": model.state_dict(), "optimizer": optimiser, "step": 5}, path)
        (tmp_path / "norm_stats.json").write_bytes(stats())
        bundle = make(path, config, tmp_path / "out", ("optimizer.*",), asset_id="cube", step=5)
        assert len(bundle.config["source"]["excluded"]) == 4000
        assert bundle.config["source"]["stripped"] == ["model"]

    def test_a_pattern_that_matches_nothing(self, tmp_path, config, model):
        with pytest.raises(WeightsError) as error:
            make(save_rlinf(tmp_path, model), config, tmp_path / "out", ("value_haed.*",))
        assert error.value.problems[0].code == "exclude-matches-nothing"

    def test_what_the_model_needs_cannot_be_excluded(self, tmp_path, config, model):
        with pytest.raises(WeightsError, match=r"2 missing: action_in_proj\.bias, action_in_proj\.weight"):
            make(save_rlinf(tmp_path, model), config, tmp_path / "out", ("action_in_proj.*",))


class TestRefusals:
    """Nothing is left behind under the bundle's name, nor beside it."""

    @pytest.fixture(autouse=True)
    def _nothing_left(self, tmp_path):
        yield
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("save", [save_openpi, save_shards, save_rlinf, save_dcp])
    @pytest.mark.parametrize("bad", [float("nan"), float("inf")])
    def test_not_finite(self, tmp_path, config, model, save, bad):
        spoilt = Pi0(config.model)
        spoilt.load_state_dict(model.state_dict())
        with torch.no_grad():
            spoilt.action_out_proj.bias[3] = bad
        with pytest.raises(WeightsError, match=r"action_out_proj\.bias holds NaN or infinity"):
            make(save(tmp_path, spoilt), config, tmp_path / "out" / "30000")
        (tmp_path / "out").rmdir()

    @pytest.mark.parametrize("save", LAYOUTS)
    def test_another_architecture(self, tmp_path, config, model, save):
        other = small_config([f"model.pi05={str(not config.model.pi05).lower()}"])
        with pytest.raises(WeightsError) as error:
            make(save(tmp_path, model), other, tmp_path / "out")
        assert error.value.problems[0].code == "weights-keys"

    def test_tied_weights_that_differ(self, tmp_path, config, model):
        for wrapper in ("", "module."):
            path = tmp_path / f"x{wrapper}"
            path.mkdir()
            tensors = {wrapper + name: tensor.clone() for name, tensor in model.state_dict().items()}
            tensors[wrapper + EMBED][0, 0] += 1
            save_file(tensors, path / "model.safetensors")
            (path / "norm_stats.json").write_bytes(stats())
            with pytest.raises(WeightsError) as error:
                make(path, config, tmp_path / "out" / "5", asset_id="cube", step=5)
            assert error.value.problems[0].code == "tied-weights-differ"
        (tmp_path / "out").rmdir()

    def test_integers(self, tmp_path, config, model):
        path = save_rlinf(tmp_path, model)
        state_dict = {name: tensor.to(torch.int8) for name, tensor in model.state_dict().items()}
        torch.save(state_dict, path / "actor" / "model_state_dict" / "full_weights.pt")
        with pytest.raises(WeightsError) as error:
            make(path, config, tmp_path / "out")
        assert error.value.problems[0].code == "weights-dtype"

    def test_names_that_begin_as_rlinfs_and_are_not(self, tmp_path, config, model):
        path = save_rlinf(tmp_path, model, "llm.")
        with pytest.raises(WeightsError) as error:
            make(path, config, tmp_path / "out")
        assert error.value.problems[0].code == "rlinf-layout"


def test_an_existing_bundle_stays_unless_overwritten(tmp_path, config, model):
    path = save_rlinf(tmp_path, model)
    first = make(path, config, tmp_path / "out")
    with pytest.raises(BundleError, match="exists already"):
        make(path, config, tmp_path / "out", step=5)
    assert read_bundle(tmp_path / "out") == first
    assert make(path, config, tmp_path / "out", step=5, overwrite=True).step == 5


def test_the_presets_that_fit(tmp_path, config, model):
    assert fitting_presets(find_source(save_rlinf(tmp_path, model))) == []
    for preset in ("tiny", "small"):
        other = Pi0(load_config(preset).model)
        initialise(other, 0)
        assert fitting_presets(find_source(save_rlinf(tmp_path / preset, other))) == [preset]


def test_a_made_bundle_with_damage_sealed_into_it_is_still_refused(tmp_path, config, model):
    """The hashes are then right; only the check of names and shapes is left to find it."""
    bundle = make(save_openpi(tmp_path, model), config, tmp_path / "out")
    tensors = load_file(bundle.path / "model.safetensors")
    tensors["renamed"] = tensors.pop("action_in_proj.bias")
    save_file(tensors, bundle.path / "model.safetensors")
    old = bundle.manifest
    seal(bundle.path, asset_id=old.asset_id, step=old.step, lineage=old.lineage, tied=old.tied)
    with pytest.raises(WeightsError, match="1 missing"):
        load_weights(read_bundle(bundle.path), Pi0(config.model))
