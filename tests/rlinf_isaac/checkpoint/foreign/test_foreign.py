"""Other people's checkpoints, from the files to a policy: what is taken, what is left open, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus.foreign import (
    ACTION_DIM,
    STATE_DIM,
    dummy_config,
    dummy_model,
    norm_stats_json,
    save_conversion,
    save_lerobot,
    statistics,
    without_the_unread,
)
from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file, save_model

from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.facts import FACTS, not_known
from rlinf_isaac.checkpoint.foreign.configured import configure
from rlinf_isaac.checkpoint.foreign.make import BundleContent, make_bundle, plan_conversion
from rlinf_isaac.checkpoint.foreign.sources import Source, find_source
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.data.norm_stats.normaliser import Normalizer
from rlinf_isaac.engines.policies import load_policy
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.pi0.layout import UNREAD
from rlinf_isaac.pi0.model import Pi0

KINDS = pytest.mark.parametrize("pi05", [False, True], ids=["pi0", "pi05"])


def make(source: Source, config: JobConfig, output: Path, **changes) -> Bundle:
    arguments = {
        "config": config,
        "asset_id": source.asset_id or "cube",
        "step": source.step or 0,
        "norm_stats": source.norm_stats.read(),
        "norm_stats_record": dict(source.norm_stats.record),
    }
    return make_bundle(plan_conversion(source, config.model), BundleContent(**arguments | changes), output)


def refusal(path: Path, **given) -> tuple[str, str]:
    """Code and cure."""
    with pytest.raises(InvalidJob) as error:
        find_source(path, **given)
    (problem,) = error.value.problems
    return problem.code, problem.cure


def same(bundle: Bundle, model: Pi0, config: JobConfig) -> bool:
    loaded = Pi0(config.model)
    load_weights(bundle, loaded)
    return all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in loaded.state_dict().items())


class TestLerobot:
    @KINDS
    def test_a_tuned_policy(self, tmp_path, pi05):
        config = dummy_config(pi05)
        model = dummy_model(config)
        path = save_lerobot(tmp_path / "run/checkpoints/030000/pretrained_model", model, "pi05" if pi05 else "pi0")
        source = find_source(path.parent)
        assert source == find_source(path)
        assert (source.kind, source.step, source.path) == ("lerobot", 30000, path)
        assert [file.name for file in source.weights.files] == ["model.safetensors"]
        configured = configure("tiny", source.said, ["model.vision.width=32", *_vision()])
        assert configured.config.model.action_horizon == 20
        assert same(make(source, configured.config, tmp_path / "out"), model, configured.config)

    def test_from_the_runs_directory_the_steps_are_named(self, tmp_path):
        model = dummy_model(dummy_config(False))
        for step in ("010000", "030000"):
            save_lerobot(tmp_path / f"run/checkpoints/{step}/pretrained_model", model, "pi0")
        (tmp_path / "run/checkpoints/last").symlink_to("030000")
        for place in ("run", "run/checkpoints"):
            code, cure = refusal(tmp_path / place)
            assert (code, cure) == ("several-checkpoints", f"name one of them: {tmp_path}/run/checkpoints/030000")
        assert find_source(tmp_path / "run/checkpoints/last").step == 30000
        save_lerobot(tmp_path / "short/checkpoints/010000/pretrained_model", model, "pi0")
        assert refusal(tmp_path / "short")[1] == f"name it: {tmp_path}/short/checkpoints/010000"

    def test_its_statistics_are_norm_stats(self, tmp_path):
        path = save_lerobot(tmp_path / "3", dummy_model(dummy_config(True)), "pi05")
        source = find_source(path)
        stats = from_json(source.norm_stats.read())
        for key, dim in (("state", STATE_DIM), ("actions", ACTION_DIM)):
            for name in ("mean", "std", "q01", "q99"):
                np.testing.assert_array_equal(getattr(getattr(stats, key), name), statistics(dim)[name].numpy())
        assert source.norm_stats.record["eps"] == 1e-8
        assert source.norm_stats.record["dropped"] == ["timestamp"]
        assert find_source(path).norm_stats.read() == source.norm_stats.read()
        given = tmp_path / "norm_stats.json"
        given.write_text(norm_stats_json())
        assert find_source(path, norm_stats=given).norm_stats.path == given

    @pytest.mark.parametrize("mode", ["zscore", "quantile"])
    def test_they_normalise_as_lerobot_does(self, tmp_path, mode):
        """By lerobot's formulas; the two epsilons differ by a millionth of a spread of three."""
        stats = from_json(
            find_source(save_lerobot(tmp_path / "3", dummy_model(dummy_config(True)), "pi05")).norm_stats.read()
        )
        rows = np.random.default_rng(1).normal(1, 3, size=(50, STATE_DIM)).astype(np.float32)
        own = {name: vector.double().numpy() for name, vector in statistics(STATE_DIM).items()}
        if mode == "zscore":
            expected = (rows - own["mean"]) / (own["std"] + 1e-8)
        else:
            expected = 2 * (rows - own["q01"]) / (own["q99"] - own["q01"]) - 1
        np.testing.assert_allclose(Normalizer.of("state", stats.state, mode).normalize(rows), expected, atol=3e-6)

    def test_a_base_has_none(self, tmp_path):
        path = save_lerobot(tmp_path / "pi05_base", dummy_model(dummy_config(True)), "pi05", tuned=False)
        code, cure = refusal(path)
        assert code == "no-norm-stats"
        assert "rlinf-isaac norm_stats --dataset DATASET" in cure
        given = tmp_path / "norm_stats.json"
        given.write_text(norm_stats_json())
        assert find_source(path, norm_stats=given).step is None

    @pytest.mark.parametrize(
        ("code", "edit"),
        [
            ("no-norm-stats", lambda path: next(path.glob("policy_preprocessor_step_*")).unlink()),
            ("damaged-safetensors", lambda path: next(path.glob("policy_preprocessor_step_*")).write_bytes(b"1234567")),
            ("no-norm-stats", lambda path: _edit_steps(path, "../../elsewhere.safetensors")),
            ("norm-stats-missing-key", lambda path: save_file({"a": torch.ones(1)}, _stats_file(path))),
            ("norm-stats-not-finite", lambda path: _edit_stats(path, float("nan"))),
            ("ambiguous-norm-stats", lambda path: _edit_stats(path, 2.0)),
            ("checkpoint-config-damaged", lambda path: (path / "policy_postprocessor.json").write_text("{")),
        ],
    )
    def test_damage_in_them(self, tmp_path, code, edit):
        path = save_lerobot(tmp_path / "3", dummy_model(dummy_config(False)), "pi0")
        edit(path)
        assert refusal(path)[0] == code

    def test_all_that_is_wrong_is_said_at_once(self, tmp_path):
        path = save_lerobot(tmp_path / "3", dummy_model(dummy_config(False)), "pi0", chunk_size="x", n_obs_steps=3)
        next(path.glob("policy_preprocessor_step_*")).unlink()
        with pytest.raises(InvalidJob) as error:
            find_source(path)
        codes = sorted(problem.code for problem in error.value.problems)
        assert codes == ["checkpoint-config-unsupported", "checkpoint-config-value", "no-norm-stats"]


class TestOpenPI:
    @KINDS
    def test_a_conversion_of_a_base(self, tmp_path, pi05):
        """The horizon is the file's, not the preset's; what it does not say stays open."""
        config = dummy_config(pi05)
        model = dummy_model(config)
        path = save_conversion(tmp_path / "pi0_base", model, "droid", "trossen", "ur5e")
        code, cure = refusal(path)
        assert code == "ambiguous-norm-stats"
        assert "--asset-id droid (or trossen, ur5e)" in cure
        source = find_source(path, asset_id="trossen")
        assert (source.asset_id, source.step, source.kind) == ("trossen", None, "openpi")
        configured = configure("tiny", source.said, [*_vision(), f"model.pi05={str(pi05).lower()}"])
        assert configured.config.model.action_horizon == 20
        assert configured.stated == {"action_horizon", "norm"}
        bundle = make(source, configured.config, tmp_path / "out", stated=configured.stated)
        assert same(bundle, model, configured.config)
        expected = set(FACTS) - {"action_horizon", "norm"} - (set() if pi05 else {"discrete_state_input"})
        assert set(not_known(bundle)) == expected
        assert bundle.config["prompts"] is bundle.config["control_hz"] is None

    def test_a_base_without_assets(self, tmp_path):
        code, cure = refusal(save_conversion(tmp_path / "pi0_base", dummy_model(dummy_config(False))))
        assert code == "no-norm-stats"
        assert "assets/<robot>/norm_stats.json" in cure
        assert "actor.model.model_path" not in cure, "that is RLinf's"

    def test_statistics_of_the_full_width_are_kept_and_sliced(self, tmp_path):
        config = dummy_config(False)
        path = save_conversion(tmp_path / "30", dummy_model(config), "droid")
        bundle = make(find_source(path), config, tmp_path / "out")
        assert bundle.norm_stats_bytes == (path / "assets/droid/norm_stats.json").read_bytes()
        policy = load_policy(bundle, config)
        images = {camera: np.zeros((1, 64, 64, 3), np.uint8) for camera in ("base_0_rgb", "left_wrist_0_rgb")}
        noise = np.zeros((1, *policy.noise_shape), np.float32)
        assert policy.act(images, np.zeros((1, STATE_DIM), np.float32), ["Stack."], noise).shape == (1, 8, ACTION_DIM)

    @pytest.mark.parametrize("change", [{"action_dim": 24}, {"paligemma_variant": "gemma_2b"}], ids=str)
    def test_a_config_of_other_weights(self, tmp_path, change):
        config = dummy_config(False)
        source = find_source(save_conversion(tmp_path / "30", dummy_model(config), "droid", **change))
        with pytest.raises(InvalidJob) as error:
            plan_conversion(source, config.model)
        for problem in error.value.problems:
            assert problem.code == "checkpoint-config-contradiction"
            assert "config.json: " in problem.cause
            assert "model.safetensors" in problem.cause


class TestWhatIsNeverRead:
    """The action expert's lm_head: OpenPI's files have it, nobody reads it, some do without."""

    @pytest.fixture
    def bundle(self, tmp_path) -> Bundle:
        config = dummy_config(True)
        tensors = without_the_unread(dummy_model(config).state_dict())
        (tmp_path / "7").mkdir()
        save_file({name: t.clone() for name, t in tensors.items()}, tmp_path / "7/model.safetensors")
        (tmp_path / "7/norm_stats.json").write_text(norm_stats_json())
        conversion = plan_conversion(find_source(tmp_path / "7"), config.model)
        assert "1 is not and is never read" in conversion.plan.summary
        assert UNREAD[0] in conversion.plan.summary
        return make(find_source(tmp_path / "7"), config, tmp_path / "out" / "7")

    def test_a_bundle_has_zeros_in_its_place(self, bundle):
        """So that loaders which want every name of OpenPI's model load it, too."""
        stored = load_file(bundle.path / "model.safetensors")
        assert not stored[UNREAD[0]].any()
        assert bundle.config["source"]["zeros"] == list(UNREAD)
        assert read_bundle(bundle.path) == bundle

    def test_it_acts_as_with_any_other_values(self, bundle, tmp_path):
        config = dummy_config(True)
        policy = load_policy(bundle, config)
        images = {camera: np.full((1, 64, 64, 3), 90, np.uint8) for camera in ("base_0_rgb", "left_wrist_0_rgb")}
        noise = np.ones((1, *policy.noise_shape), np.float32)
        arguments = (images, np.zeros((1, STATE_DIM), np.float32), ["Stack."], noise)
        before = policy.act(*arguments)
        with torch.no_grad():
            policy.model.paligemma_with_expert.gemma_expert.lm_head.weight.fill_(5)
        np.testing.assert_array_equal(policy.act(*arguments), before)

    def test_loose_weights_load_with_zeros(self, bundle, tmp_path):
        model = Pi0(dummy_config(True).model)
        load_weights(tmp_path / "7", model)
        assert not model.paligemma_with_expert.gemma_expert.lm_head.weight.any()


class TestShardsWithoutAnIndex:
    @staticmethod
    def save(path: Path, model: Pi0) -> Path:
        save_torch_state_dict(model.state_dict(), path, max_shard_size="200KB")
        (path / "model.safetensors.index.json").unlink()
        (path / "norm_stats.json").write_text(norm_stats_json())
        return path

    @pytest.fixture
    def shards(self, tmp_path) -> Path:
        (tmp_path / "5").mkdir()
        return self.save(tmp_path / "5", dummy_model(dummy_config(False)))

    def test_they_are_one_model(self, shards, tmp_path):
        config = dummy_config(False)
        source = find_source(shards)
        assert len(source.weights.files) > 2
        assert "without an index are read as one model" in source.notes[0]
        bundle = make(source, config, tmp_path / "out")
        assert (bundle.path / "model.safetensors").is_file()
        assert same(bundle, dummy_model(config), config)

    def test_a_missing_one_is_named(self, shards):
        lost = sorted(shards.glob("*.safetensors"))[1]
        lost.unlink()
        with pytest.raises(InvalidJob, match=lost.name) as error:
            find_source(shards)
        assert error.value.problems[0].code == "weights-file-missing"

    def test_overlapping_ones_are_not_merged(self, shards):
        save_file({"action_in_proj.bias": torch.ones(3)}, shards / "older.safetensors")
        assert refusal(shards)[0] == "ambiguous-weights"


def test_an_adapter_of_peft_is_no_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    save_file({"base_model.model.action_in_proj.lora_A.weight": torch.ones(1)}, tmp_path / "adapter_model.safetensors")
    for place in (tmp_path, tmp_path / "adapter_model.safetensors"):
        code, cure = refusal(place)
        assert code == "peft-adapter"
        assert f"PeftModel.from_pretrained(base, '{tmp_path}').merge_and_unload()" in cure


def test_a_bundle_made_anew_keeps_what_the_first_one_knew(tmp_path):
    config = dummy_config(True)
    source = find_source(save_conversion(tmp_path / "30", dummy_model(config), "droid"))
    told = {"prompt": "Stack.", "tokenizer": "byte"}
    first = make(source, config, tmp_path / "a" / "30", stated={"action_horizon"}, assumed=told)
    again = find_source(first.path)
    configured = configure(first.job, again.said, ["policy.norm=zscore"], {"control_hz": 15})
    second = make(again, configured.config, tmp_path / "b", stated=configured.stated, assumed=configured.assumed)
    assert set(not_known(first)) - set(not_known(second)) == {"control_hz", "norm"}
    assert second.config["prompts"] == {"0": "Stack."}
    assert second.config["assumed"] == {**first.config["assumed"], "control_hz": 15, "norm": "zscore"}
    assert second.config["tokenizer"] == first.config["tokenizer"] is not None
    with pytest.raises(InvalidJob) as error:
        configure(first.job, again.said, ["model.action_horizon=9"])
    assert error.value.problems[0].code == "override-contradicts"


def _vision() -> list[str]:
    return [f"model.vision.{each}" for each in ("width=32", "depth=1", "mlp_dim=32", "patch_size=32")]


def _stats_file(path: Path) -> Path:
    return next(path.glob("policy_preprocessor_step_*"))


def _edit_stats(path: Path, value: float) -> None:
    tensors = load_file(_stats_file(path))
    tensors["action.mean"][0] = value
    save_file(tensors, _stats_file(path))


def _edit_steps(path: Path, state_file: str) -> None:
    content = json.loads((path / "policy_preprocessor.json").read_text())
    next(step for step in content["steps"] if "state_file" in step)["state_file"] = state_file
    (path / "policy_preprocessor.json").write_text(json.dumps(content))


def test_openpis_own_loader_takes_such_a_bundle(tmp_path):
    """Its ``safetensors.torch.load_model`` insists on every name."""
    from safetensors.torch import load_model

    config = dummy_config(False)
    model = dummy_model(config)
    (tmp_path / "7").mkdir()
    save_model(model, str(tmp_path / "whole.safetensors"))
    kept = without_the_unread(load_file(tmp_path / "whole.safetensors"))
    save_file(kept, tmp_path / "7/model.safetensors")
    (tmp_path / "7/norm_stats.json").write_text(norm_stats_json())
    bundle = make(find_source(tmp_path / "7"), config, tmp_path / "out")
    assert load_model(Pi0(config.model), bundle.path / "model.safetensors", strict=True) == (set(), [])
