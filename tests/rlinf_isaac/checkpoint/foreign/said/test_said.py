"""What is read of a foreign checkpoint's files, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from corpus.foreign import lerobot_config, lerobot_steps, openpi_config
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.checkpoint.foreign.said import Said, contradictions, read_said
from rlinf_isaac.checkpoint.foreign.said.entries import MAX_BYTES
from rlinf_isaac.checkpoint.header import TensorInfo
from rlinf_isaac.ground.errors import InvalidJob


@pytest.fixture
def write(tmp_path):
    """Write ``config.json`` and, if given, lerobot's preprocessor; returns their directory."""

    def write(config, preprocessor=None) -> Path:
        (tmp_path / "config.json").write_text(json.dumps(config))
        if preprocessor is not None:
            (tmp_path / "policy_preprocessor.json").write_text(json.dumps(preprocessor))
        return tmp_path

    return write


def codes(root: Path) -> list[str]:
    with pytest.raises(InvalidJob) as error:
        read_said(root)
    assert all(problem.cure for problem in error.value.problems)
    return [problem.code for problem in error.value.problems]


class TestOpenPI:
    def test_what_its_converter_writes(self, write):
        said = read_said(write(openpi_config()))
        assert said.values["model.action_horizon"] == 20
        assert said.places["model.action_horizon"] == "config.json: action_horizon"
        assert said.values["model.action_dim"] == 32
        assert (said.values["model.vlm.width"], said.values["model.expert.num_heads"]) == (64, 8)
        assert said.writer == "openpi"

    def test_what_its_code_decides(self, write):
        said = read_said(write(openpi_config()))
        assert said.values["policy.norm"] == "auto"
        assert "OpenPI's rule" in said.places["policy.norm"]
        assert "OpenPI's rule" in said.tokenizer

    def test_what_it_does_not_say_is_absent(self, write):
        said = read_said(write(openpi_config()))
        absent = {"model.pi05", "model.max_token_len", "model.discrete_state_input", "policy.action_chunk"}
        assert absent.isdisjoint(said.values)
        assert not any(key.startswith("compute.") for key in said.values), "how it computes is the job's choice"

    def test_without_a_file_only_the_rules_of_openpis_layout(self, tmp_path):
        assert read_said(tmp_path) == Said()
        assert set(read_said(tmp_path, openpi=True).values) == {"policy.norm"}

    def test_all_faults_at_once(self, write):
        wrong = {"action_dim": "32", "action_horizon": True, "paligemma_variant": "gemma_9b", "pi05": 1}
        assert codes(write(openpi_config(**wrong))) == ["checkpoint-config-value"] * 4


class Factory:
    """Some class of a training's config that nobody here has."""

    def __reduce__(self):
        return os.mkdir, ("pwned",)


class TestTrainingOfOpenPI:
    """metadata.pt of train_pytorch.py, the TrainConfig as nested dicts with whatever else is in it."""

    MODEL = {  # noqa: RUF012
        "action_dim": 32,
        "action_horizon": 10,
        "max_token_len": 180,
        "dtype": "bfloat16",
        "paligemma_variant": "gemma_2b",
        "action_expert_variant": "gemma_300m",
        "pi05": True,
        "discrete_state_input": False,
    }

    @staticmethod
    def save(root: Path, content: object) -> Path:
        torch.save(content, root / "metadata.pt")
        return root

    def test_its_model(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        config = {"model": self.MODEL, "data": Factory(), "path": Path("x"), "kind": int, "lr": 2.5e-5}
        said = read_said(self.save(tmp_path, {"global_step": 30000, "config": config}), openpi=True)
        assert said.values["model.action_horizon"] == 10
        assert said.places["model.discrete_state_input"] == "metadata.pt: config.model.discrete_state_input"
        assert (said.values["model.pi05"], said.values["model.discrete_state_input"]) == (True, False)
        assert (said.values["model.max_token_len"], said.values["model.vlm.width"]) == (180, 2048)
        assert not (tmp_path / "pwned").exists(), "nothing was called"

    @pytest.mark.parametrize("content", [{"global_step": 3}, [1], {"config": 3}, {"config": {"model": {"a": 1}}}])
    def test_one_that_says_nothing(self, tmp_path, content):
        assert read_said(self.save(tmp_path, content)) == Said()

    def test_wrong_types(self, tmp_path):
        config = {"model": {**self.MODEL, "action_horizon": "10", "pi05": None, "max_token_len": Factory()}}
        assert codes(self.save(tmp_path, {"config": config})) == ["checkpoint-config-value"] * 2

    @pytest.mark.parametrize("cut", [10, 200])
    def test_damage(self, tmp_path, cut):
        file = self.save(tmp_path, {"config": {"model": self.MODEL}}) / "metadata.pt"
        file.write_bytes(file.read_bytes()[:-cut])
        assert codes(tmp_path) == ["checkpoint-config-damaged"]


class TestLerobot:
    @pytest.mark.parametrize(("policy", "pi05", "norm"), [("pi0", False, "zscore"), ("pi05", True, "quantile")])
    def test_a_policy(self, write, policy, pi05, norm):
        config = lerobot_config(policy)
        said = read_said(write(config, lerobot_steps(config, None)))
        values = said.values
        assert (values["model.pi05"], values["policy.norm"]) == (pi05, norm)
        assert (values["model.action_horizon"], values["policy.action_chunk"]) == (20, 10)
        assert values["model.max_token_len"] == config["tokenizer_max_length"]
        assert (values["policy.denoise_steps"], values["policy.delta_actions"]) == (10, "none")
        assert values.get("model.discrete_state_input") == (True if pi05 else None)
        assert "google/paligemma-3b-pt-224" in said.tokenizer
        assert (said.writer, said.doubtful, said.remarks) == ("lerobot", (), ())

    def test_the_prompt_of_an_old_release_is_a_doubt(self, write):
        """Up to 0.4 the state was padded in it, which the file does not say."""
        config = lerobot_config("pi05")
        del config["use_relative_actions"]
        said = read_said(write(config))
        assert said.doubtful == ("model.discrete_state_input",)
        assert "model.discrete_state_input" not in said.certain
        assert "padded" in said.remarks[0]
        assert "policy.delta_actions" not in said.values

    @pytest.mark.parametrize(
        ("names", "excluded", "mask"),
        [
            (None, ["gripper"], "7"),
            (["dx", "dy", "dz", "rx", "ry", "rz", "gripper"], ["gripper"], "6,-1"),
            (["l_Gripper", "a", "b", "c", "r_gripper", "d", "e"], ["gripper"], "-1,3,-1,2"),
            (["dx", "dy"], [], "7"),
            (["dx", "dy"], ["d"], "-2,5"),
        ],
    )
    def test_relative_actions_become_a_mask(self, write, names, excluded, mask):
        changes = {"action_feature_names": names, "relative_exclude_joints": excluded}
        said = read_said(write(lerobot_config("pi0", use_relative_actions=True, **changes)))
        assert said.values["policy.delta_actions"] == mask

    def test_cameras_of_other_names_are_remarked(self, write):
        config = lerobot_config("pi0")
        config["input_features"]["observation.images.top"] = {"type": "VISUAL", "shape": [3, 64, 64]}
        assert "front, observation.images.wrist, observation.images.top" in read_said(write(config)).remarks[0]

    @pytest.mark.parametrize(
        "changes",
        [
            {"type": "act"},
            {"normalization_mapping": {"STATE": "MIN_MAX", "ACTION": "MIN_MAX"}},
            {"normalization_mapping": {"STATE": "MEAN_STD", "ACTION": "QUANTILES"}},
            {"use_relative_actions": True, "output_features": {}},
            {"n_obs_steps": 2},
            {"use_visual_memory": True},
            {"max_state_dim": 16},
        ],
        ids=str,
    )
    def test_what_the_policy_here_cannot_do(self, write, changes):
        assert codes(write(lerobot_config("pi0", **changes))) == ["checkpoint-config-unsupported"]

    @pytest.mark.parametrize(
        "changes",
        [{"type": 5}, {"chunk_size": 0}, {"chunk_size": 1.5}, {"use_relative_actions": "no"}, {"n_action_steps": -1}],
        ids=str,
    )
    def test_wrong_types(self, write, changes):
        assert codes(write(lerobot_config("pi0", **changes))) == ["checkpoint-config-value"]

    def test_the_two_files_contradict_each_other(self, write):
        config = lerobot_config("pi0")
        steps = lerobot_steps(config, None)
        steps["steps"][3]["config"]["norm_map"] = {"STATE": "QUANTILES", "ACTION": "QUANTILES"}
        steps["steps"][2]["config"]["enabled"] = True
        assert codes(write(config, steps)) == ["checkpoint-config-contradiction"] * 2

    @pytest.mark.parametrize("steps", [{"steps": 3}, {"steps": [1]}, {}])
    def test_a_preprocessor_without_steps(self, write, steps):
        assert codes(write(lerobot_config("pi0"), steps)) == ["checkpoint-config-value"]


class TestRLinf:
    @pytest.fixture
    def checkpoint(self, tmp_path):
        def make(text: str) -> Path:
            root = tmp_path / "log/exp/checkpoints/global_step_9"
            root.mkdir(parents=True)
            (tmp_path / "log/tensorboard").mkdir()
            (tmp_path / "log/tensorboard/config.yaml").write_text(text)
            return root

        return make

    def test_a_run_of_its_isaaclab_config(self, checkpoint):
        model = "{num_action_chunks: 5, num_steps: 4, openpi: {config_name: pi05_isaaclab_stack_cube}}"
        said = read_said(checkpoint(f"actor: {{model: {model}}}"))
        assert said.values == {
            "policy.action_chunk": 5,
            "policy.denoise_steps": 4,
            "model.pi05": True,
            "model.action_horizon": 10,
            "model.max_token_len": 200,
            "model.discrete_state_input": False,
            "policy.norm": "auto",
        }
        assert "pi05_isaaclab_stack_cube, as RLinf 0.3 has it" in said.places["model.action_horizon"]

    def test_what_the_run_sets_goes_before_its_named_config(self, checkpoint):
        model = "{openpi: {config_name: pi0_libero, action_horizon: 12}, num_action_chunks: '${x}'}"
        said = read_said(checkpoint(f"actor: {{model: {model}}}\nx: 3"))
        assert (said.values["model.action_horizon"], said.values["policy.action_chunk"]) == (12, 3)
        assert "model.discrete_state_input" not in said.values

    def test_a_config_of_somebodys_own(self, checkpoint):
        said = read_said(checkpoint("actor: {model: {openpi: {config_name: pi0_mine}}}"))
        assert set(said.values) == {"policy.norm"}
        assert "pi0_mine" in said.remarks[0]

    def test_another_kind_of_model(self, checkpoint):
        assert read_said(checkpoint("actor: {model: {model_type: openvla, num_action_chunks: 8}}")) == Said()

    def test_its_names_are_those_of_the_release(self):
        from rlinf_isaac.checkpoint.foreign.said.rlinf import CONFIGS

        assert all((discrete is None) == name.startswith("pi0_") for name, (_, discrete) in CONFIGS.items())


class TestOurs:
    def test_the_job_of_a_bundle_without_its_manifest(self, write):
        policy = {"norm": "auto", "asset_id": "a"}
        job = {"model": {"action_horizon": 7, "vlm": {"width": 3}}, "policy": policy, "sft": {"steps": 3}}
        said = read_said(write({"job": job, "not_known": ["norm"]}))
        assert said.values == {"model.action_horizon": 7, "model.vlm.width": 3}

    def test_an_earlier_release_knew_nothing_of_a_foreign_checkpoint(self, write):
        job = {"model": {"action_horizon": 7, "action_dim": 32}, "policy": {"action_chunk": 5}}
        assert read_said(write({"job": job, "source": {"kind": "openpi"}})).values == {"model.action_dim": 32}


class TestDamage:
    @pytest.mark.parametrize(
        "data",
        [b"", b"{", b"[1]", b"3", b'{"a": 1, "a": 2}', b'{"a": NaN}', b"\xff\xfe", b"[" * 100_000],
        ids=lambda data: repr(data[:20]),
    )
    def test_no_json_object(self, tmp_path, data):
        (tmp_path / "config.json").write_bytes(data)
        assert codes(tmp_path) == ["checkpoint-config-damaged"]

    def test_too_large(self, tmp_path):
        (tmp_path / "config.json").write_text(json.dumps({"type": "x" * MAX_BYTES}))
        assert codes(tmp_path) == ["checkpoint-config-damaged"]

    def test_a_pipe_is_not_waited_for(self, tmp_path):
        os.mkfifo(tmp_path / "config.json")
        assert codes(tmp_path) == ["checkpoint-config-damaged"]

    def test_an_object_of_something_else(self, write):
        said = read_said(write({"model_type": "llama\x1b[31m", "b": 1}))
        assert said.values == {}
        assert "model_type, b" in said.remarks[0]

    @settings(deadline=None, max_examples=200)
    @given(
        st.dictionaries(
            st.sampled_from([*lerobot_config("pi0"), *openpi_config(), "job", "steps"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
                max_leaves=5,
            ),
            max_size=6,
        )
    )
    def test_whatever_it_holds_is_read_or_refused(self, tmp_path_factory, values):
        root = tmp_path_factory.mktemp("any")
        (root / "config.json").write_text(json.dumps(values))
        (root / "policy_preprocessor.json").write_text(json.dumps(values))
        try:
            said, refused = read_said(root), ()
        except InvalidJob as error:
            said, refused = Said(), error.problems
        assert all(problem.code.startswith("checkpoint-config-") for problem in refused)
        assert said.values.keys() == said.places.keys()


class TestContradictions:
    STORED = {  # noqa: RUF012
        "action_in_proj.weight": TensorInfo("F32", (64, 32)),
        "time_mlp_in.weight": TensorInfo("F32", (64, 64)),
        "paligemma_with_expert.gemma_expert.model.layers.0.mlp.gate_proj.weight": TensorInfo("F32", (128, 64)),
        "paligemma_with_expert.gemma_expert.model.layers.1.mlp.gate_proj.weight": TensorInfo("F32", (128, 64)),
    }

    @pytest.mark.parametrize(
        ("key", "right", "wrong"),
        [
            ("model.action_dim", 32, 24),
            ("model.pi05", True, False),
            ("model.expert.width", 64, 1024),
            ("model.expert.depth", 2, 18),
            ("model.expert.mlp_dim", 128, 4096),
        ],
    )
    def test_both_are_named(self, key, right, wrong):
        place = "config.json: entry"
        assert contradictions(Said({key: right}, {key: place}), self.STORED, "model.safetensors") == []
        (problem,) = contradictions(Said({key: wrong}, {key: place}), self.STORED, "model.safetensors")
        assert problem.code == "checkpoint-config-contradiction"
        assert place in problem.cause
        assert "model.safetensors" in problem.cause


def test_it_needs_no_torch():
    code = "import sys, rlinf_isaac.checkpoint.foreign.said; print({'torch', 'mlflow'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "set()"
