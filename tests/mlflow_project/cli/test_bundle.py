"""`bundle` on real checkpoints of a short training, taken apart into the layouts of OpenPI and RLinf."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from corpus.foreign import (
    dummy_config,
    dummy_model,
    dummy_preset,
    norm_stats_json,
    save_conversion,
    save_lerobot,
    without_the_unread,
)
from corpus.hub import Hub, serve
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from support import SHORT_EVALUATION, SMALL_PRESET, only_error, rows_of

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.checkpoint.write_bundle import seal
from rlinf_isaac.config import build_config
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.ground.digest import bytes_digest, file_digest
from rlinf_isaac.pi0.model import Pi0

ASSET = "isaaclab_stack_cube"


@pytest.fixture
def rlinf(tmp_path, small_checkpoints) -> Path:
    """A training run of RLinf's: global_step_2 and global_step_4, norm stats copied in by hand."""
    root = tmp_path / "stack_cube_sft" / "checkpoints"
    for step in (2, 4):
        bundle = read_bundle(small_checkpoints / str(step))
        model = Pi0(build_config(bundle.config["job"], "test").model)
        load_weights(bundle, model)
        path = root / f"global_step_{step}"
        (path / "actor" / "model_state_dict").mkdir(parents=True)
        wrapped = {f"_fsdp_wrapped_module.{name}": tensor for name, tensor in model.state_dict().items()}
        torch.save(wrapped, path / "actor" / "model_state_dict" / "full_weights.pt")
        (path / ASSET).mkdir()
        (path / ASSET / "norm_stats.json").write_bytes(bundle.norm_stats_bytes)
    return root


@pytest.fixture
def bundle_path(tmp_path, small_checkpoints) -> Path:
    """A bundle that a test may damage."""
    return Path(shutil.copytree(small_checkpoints / "4", tmp_path / "bundle" / "4"))


class TestMake:
    def test_rlinf_checkpoints_become_a_root_that_eval_takes(
        self, invoke, store, rlinf, small_dataset, small_checkpoints, tmp_path
    ):
        for step in (2, 4):
            options = ("--preset", SMALL_PRESET, "--dataset", small_dataset, "--output", "out")
            result = invoke("bundle", "make", rlinf / f"global_step_{step}", *options)
            assert result.exit_code == 0, result.output
            source = rlinf / f"global_step_{step}"
            for fact in (
                f"checkpoint   {source} (rlinf)",
                f"weights      {source}/actor/model_state_dict/full_weights.pt",
                f"norm stats   {source}/{ASSET}/norm_stats.json sha256",
                f"step         {step}",
                f"asset id     {ASSET}",
                "stripped     _fsdp_wrapped_module",
                file_digest(source / "actor/model_state_dict/full_weights.pt"),
            ):
                assert fact in result.stdout
        root = tmp_path / "out" / "bundles" / "stack_cube_sft"
        made, trained = read_bundle(root / "4"), read_bundle(small_checkpoints / "4")
        assert f"rlinf-isaac eval --ckpt-root {root} --ckpt-steps 4" in result.stdout
        assert made.lineage["dataset"] == trained.lineage["dataset"] == LeRobotDataset(small_dataset).digest
        assert made.lineage["norm_stats"] == trained.lineage["norm_stats"]
        assert load_file(root / "4/model.safetensors").keys() == load_file(trained.path / "model.safetensors").keys()

        evaluation = ("--episodes", "2", "--videos", "1", "--output", "out", "--overrides", SHORT_EVALUATION)
        refused = invoke("eval", "--ckpt-root", root, *evaluation)
        assert refused.exit_code == 2
        assert "tokenizer: the prompt tokenizer" in refused.stderr, "the dataset says the rest"
        result = invoke("eval", "--ckpt-root", root, "--assume", "all", *evaluation)
        assert result.exit_code == 0, result.output
        assert [row["checkpoint"] for row in rows_of(tmp_path / "out/eval")] == [
            digest for step in ("2", "4") for digest in [read_bundle(root / step).digest] * 2
        ]

    def test_the_run_holds_manifest_config_and_norm_stats(self, invoke, store, rlinf):
        options = ("--preset", SMALL_PRESET, "--output", "out")
        assert invoke("bundle", "make", rlinf / "global_step_4", *options).exit_code == 0
        client = MlflowClient(store)
        (run,) = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
        bundle = read_bundle("out/bundles/stack_cube_sft/4")
        assert (run.info.run_name, run.info.status) == ("bundle stack_cube_sft 4", "FINISHED")
        assert run.data.tags["checkpoint.sha256"] == bundle.digest
        assert run.data.tags["lineage.weights.sha256"] == bundle.weights_digest
        assert run.data.params["source/kind"] == "rlinf"
        files = {file.path for file in client.list_artifacts(run.info.run_id, "checkpoints/4")}
        assert files >= {"checkpoints/4/bundle.json", "checkpoints/4/config.json"}
        assert "checkpoints/4/model.safetensors" not in files

    def test_a_bundle_knows_its_own_job(self, invoke, store, bundle_path):
        result = invoke("bundle", "make", bundle_path, "--name", "again", "--output", "out")
        assert result.exit_code == 0, result.output
        made, source = read_bundle("out/bundles/again/4"), read_bundle(bundle_path)
        assert made.lineage["parent"] == source.digest
        assert made.config["job"] == source.config["job"]
        assert made.weights_digest == source.weights_digest
        again = invoke("bundle", "make", bundle_path, "--name", "again", "--output", "out")
        assert (again.exit_code, "this command has made it before" in again.stdout) == (0, True), again.output

    def test_the_preset_is_recognised_by_its_shapes(self, invoke, store, tmp_path):
        from rlinf_isaac.config import load_config
        from rlinf_isaac.pi0.model import initialise

        config, source = load_config("tiny", ["policy.state_layout=proprio"]), tmp_path / "7"
        model = Pi0(config.model)
        initialise(model, 0)
        source.mkdir()
        save_file({n: t.clone() for n, t in model.state_dict().items()}, source / "model.safetensors")
        entry = {dim: {"mean": [0.0] * dim, "std": [1.0] * dim} for dim in (7, 8)}
        stats = json.dumps({"norm_stats": {"state": entry[8], "actions": entry[7]}})
        (source / "norm_stats.json").write_text(stats)
        result = invoke("bundle", "make", source, "--overrides", "policy.state_layout=proprio", "--output", "out")
        assert result.exit_code == 0, result.output
        assert "preset       tiny" in result.stdout
        (made,) = Path("out/bundles").glob("*/7")
        assert read_bundle(made).asset_id == config.policy.asset_id

    def test_mis_keyed_norm_stats_need_a_choice(self, invoke, store, rlinf):
        file = rlinf / "global_step_4" / ASSET / "norm_stats.json"
        good = json.loads(file.read_bytes())["norm_stats"]
        renamed = {"observation.state": good["state"], "action": good["actions"]}
        file.write_text(json.dumps({"norm_stats": renamed}))
        options = ("--preset", SMALL_PRESET, "--output", "out")
        refused = invoke("bundle", "make", rlinf / "global_step_4", *options)
        only_error(refused, "norm-stats-keys")
        assert "--norm-stats-mode canonical" in refused.stderr
        assert not Path("out").exists()
        for mode in ("canonical", "identity"):
            arguments = (rlinf / "global_step_4", *options, "--norm-stats-mode", mode, "--name", mode)
            result = invoke("bundle", "make", *arguments)
            assert result.exit_code == 0, result.output
            bundle = read_bundle(f"out/bundles/{mode}/4")
            stats = json.loads(bundle.norm_stats_bytes)["norm_stats"]
            assert stats.keys() == {"state", "actions"}
            assert (stats == good) == (mode == "canonical")
            record = bundle.config["norm_stats"]
            assert record["mode"] == mode
            assert record["source"] == f"{ASSET}/norm_stats.json"
            assert record["source_sha256"] == bytes_digest(file.read_bytes())

    @pytest.mark.parametrize(
        ("code", "options"),
        [
            ("unknown-architecture", ("--preset", "auto")),
            ("weights-keys", ("--overrides", "model.pi05=true")),
            ("weights-shapes", ("--overrides", "model.vocab_size=299")),
            ("norm-stats-dim", ("--overrides", "env.task=stack3")),
            ("no-norm-stats", ("--norm-stats", "nowhere.json")),
            ("missing-checkpoint", ("--weights", "nowhere.pt")),
            ("exclude-matches-nothing", ("--exclude", "value_head.*")),
            ("bad-step", ("--step", "last")),
            ("unknown-preset", ("--preset", "tinny")),
            ("bad-asset-id", ("--asset-id", "../up")),
            ("bad-name", ("--name", "../up")),
            ("bad-value", ("--overrides", "policy.action_chunk=0")),
        ],
    )
    def test_refusals_write_nothing(self, invoke, store, rlinf, code, options):
        before = ("--preset", SMALL_PRESET, "--output", "out")
        only_error(invoke("bundle", "make", rlinf / "global_step_4", *before, *options), code)
        assert not Path("out").exists()
        assert MlflowClient(store).get_experiment_by_name("rlinf-isaac") is None

    def test_an_existing_bundle_is_its_own_or_needs_force(self, invoke, store, rlinf):
        arguments = ("bundle", "make", rlinf / "global_step_4", "--preset", SMALL_PRESET, "--output", "out")
        assert invoke(*arguments).exit_code == 0
        first = read_bundle("out/bundles/stack_cube_sft/4")
        files = [path for path in first.path.rglob("*") if path.is_file()]
        written = {path: path.stat().st_mtime_ns for path in files}
        again = invoke(*arguments)
        assert (again.exit_code, "this command has made it before" in again.stdout) == (0, True), again.output
        for other in ("control_hz=30", "prompt='Another one.'"):
            only_error(invoke(*arguments, "--assume", other), "bundle-exists")
        only_error(invoke(*arguments, "--asset-id", "other"), "bundle-exists")
        assert {path: path.stat().st_mtime_ns for path in files} == written
        assert len(MlflowClient(store).search_logged_models(["1"])) == 1

        weights = rlinf / "global_step_4" / "actor" / "model_state_dict" / "full_weights.pt"
        kept = weights.read_bytes()
        weights.write_bytes((rlinf / "global_step_2" / weights.relative_to(rlinf / "global_step_4")).read_bytes())
        only_error(invoke(*arguments), "bundle-exists")
        weights.write_bytes(kept)
        sealed = (first.path / "model.safetensors").read_bytes()
        (first.path / "model.safetensors").write_bytes(sealed[:-1] + bytes([sealed[-1] ^ 1]))
        only_error(invoke(*arguments), "bundle-exists")
        assert invoke(*arguments, "--force").exit_code == 0
        assert read_bundle("out/bundles/stack_cube_sft/4") == first


class TestVerify:
    def test_a_whole_bundle(self, invoke, store, bundle_path):
        result = invoke("bundle", "verify", bundle_path)
        assert result.exit_code == 0, result.output
        bundle = read_bundle(bundle_path)
        assert all(name in result.stdout for name in bundle.manifest.files)
        assert bundle.digest in result.stdout
        assert MlflowClient(store).get_experiment_by_name("rlinf-isaac") is None

    def test_faults(self, invoke, store, bundle_path):
        file = bundle_path / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        only_error(invoke("bundle", "verify", bundle_path), "bundle-file-changed")
        file.write_bytes(whole[:-1])
        only_error(invoke("bundle", "verify", bundle_path), "bundle-file-size")
        tensors = load_file_bytes(whole, bundle_path)
        tensors["renamed"] = tensors.pop("action_in_proj.bias")
        save_file(tensors, file)
        manifest = read_manifest(bundle_path)
        seal(bundle_path, asset_id=ASSET, step=4, lineage=manifest["lineage"], tied=manifest["tensors"]["tied"])
        only_error(invoke("bundle", "verify", bundle_path), "weights-keys")
        only_error(invoke("bundle", "verify", bundle_path / "nowhere"), "not-a-bundle")


class TestShow:
    def test_config_lineage_and_sizes(self, invoke, store, bundle_path):
        result = invoke("bundle", "show", bundle_path)
        assert result.exit_code == 0, result.output
        bundle = read_bundle(bundle_path)
        known = [digest for digest in bundle.lineage.values() if digest]
        for fact in (
            bundle.digest,
            *known,
            "not known",
            "step 4",
            ASSET,
            "Stack the red block",
            "action_chunk  8",
            "model.safetensors",
        ):
            assert fact in result.stdout

    def test_the_weights_are_not_hashed(self, invoke, store, bundle_path):
        file = bundle_path / "model.safetensors"
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert invoke("bundle", "show", bundle_path).exit_code == 0


def read_manifest(path: Path) -> dict:
    return json.loads((path / "bundle.json").read_bytes())


def load_file_bytes(data: bytes, folder: Path) -> dict[str, torch.Tensor]:
    (folder.parent / "whole.safetensors").write_bytes(data)
    return load_file(folder.parent / "whole.safetensors")


class TestMakeOfForeignCheckpoints:
    """What they say of themselves goes before the preset; what nobody says is left open."""

    @pytest.fixture
    def preset(self, tmp_path) -> Path:
        return dummy_preset(tmp_path / "dummy.yaml", pi05=True)

    @pytest.fixture
    def model(self) -> Pi0:
        return dummy_model(dummy_config(True))

    def make(self, invoke, source, preset, *options):
        return invoke("bundle", "make", source, "--preset", preset, "--output", "out", *options)

    def test_a_base_of_openpi(self, invoke, store, tmp_path, preset, model):
        """Which statistics, and which step: each is asked for, and each answer works as it is typed."""
        source = save_conversion(tmp_path / "pi05_base", model, "droid", "trossen")
        refused = self.make(invoke, source, preset)
        only_error(refused, "ambiguous-norm-stats")
        assert "--asset-id droid (or trossen)" in refused.stderr
        refused = self.make(invoke, source, preset, "--asset-id", "trossen")
        only_error(refused, "no-step")
        assert "--step N; 0 for a published model or base" in refused.stderr
        result = self.make(invoke, source, preset, "--asset-id", "trossen", "--step", "0")
        assert result.exit_code == 0, result.output
        for line in (
            "said         model.action_horizon 20 (config.json: action_horizon); the preset has 16",
            "said         policy.norm auto (OpenPI's rule",
        ):
            assert line in result.stdout
        assert result.stderr.count("norm-stats-longer") == 2
        bundle = read_bundle("out/bundles/pi05_base/0")
        assert bundle.job["model"]["action_horizon"] == 20
        assert (bundle.asset_id, bundle.config["prompts"]) == ("trossen", None)
        sliced = {"state": {"stored": 32, "used": 8}, "actions": {"stored": 33, "used": 7}}
        assert bundle.config["norm_stats"]["dims"] == sliced
        assert not {"action_horizon", "norm"} & set(bundle.config["not_known"])
        assert {"prompt", "discrete_state_input", "tokenizer"} <= set(bundle.config["not_known"])

    def test_a_model_of_the_hub(self, start, tmp_path, preset, model, monkeypatch):
        """Downloaded once, with its commit in its record; made again offline it is found to be there."""
        base = save_conversion(tmp_path / "base", model, "droid")
        files = {file.relative_to(base).as_posix(): file.read_bytes() for file in base.rglob("*") if file.is_file()}
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        words = ("bundle", "make", "hf://lab/pi05-base", "--step", "0", "--preset", preset, "--output", "out")
        with serve(Hub({"lab/pi05-base": {"main": files}})) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.url)
            for offline, told in (("0", "fetched      hf://lab/pi05-base@"), ("1", "there        ")):
                # The hub's library looks for its variables when it is imported.
                monkeypatch.setenv("HF_HUB_OFFLINE", offline)
                process = start(*words)
                out, err = process.communicate()
                assert process.returncode == 0, err
                assert told in out
        bundle = read_bundle("out/bundles/pi05-base/0")
        commit = hub.commit("lab/pi05-base", "main")
        assert bundle.config["source"]["hub"] == f"hf://lab/pi05-base@{commit}"
        assert bundle.config["source"]["files"].keys() == {"model.safetensors"}

    def test_a_step_of_a_lerobot_run(self, invoke, store, tmp_path, preset, model):
        run = tmp_path / "train"
        save_lerobot(run / "checkpoints/000030/pretrained_model", model, "pi05")
        only_error(self.make(invoke, run, preset), "several-checkpoints")
        told = "prompt='Stack the red block.',control_hz=30"
        result = self.make(invoke, run / "checkpoints/000030", preset, "--assume", told)
        assert result.exit_code == 0, result.output
        assert "assumed      control_hz 30" in result.stdout
        bundle = read_bundle("out/bundles/train/30")
        assert bundle.config["assumed"] == {"prompt": "Stack the red block.", "control_hz": 30}
        assert bundle.config["not_known"] == ["state", "actions", "tokenizer"]
        assert bundle.config["norm_stats"]["format"] == "lerobot"
        assert bundle.config["source"]["said"]["values"]["model.action_horizon"]["place"] == "config.json: chunk_size"
        assert json.loads(bundle.norm_stats_bytes)["norm_stats"].keys() == {"state", "actions"}

    def test_eval_names_the_command_for_a_lerobot_run_and_it_works(self, invoke, store, tmp_path, preset, model):
        save_lerobot(tmp_path / "train/checkpoints/000030/pretrained_model", model, "pi05")
        refused = invoke("eval", "--ckpt-root", tmp_path / "train/checkpoints", "--output", "out")
        only_error(refused, "not-a-bundle")
        named = f"rlinf-isaac bundle make {tmp_path}/train/checkpoints/000030"
        assert named in refused.stderr
        result = self.make(invoke, named.split()[-1], preset)
        assert result.exit_code == 0, result.output

    @pytest.mark.parametrize(
        ("code", "options"),
        [
            ("override-contradicts", ("--overrides", "model.action_horizon=16")),
            ("override-contradicts", ("--overrides", "policy.norm=zscore")),
            ("override-contradicts", ("--assume", "discrete_state_input=false")),
            ("bad-assumption", ("--assume", "prompts=x")),
            ("no-norm-stats", ("--norm-stats", "nowhere.json")),
        ],
    )
    def test_refusals(self, invoke, store, tmp_path, preset, model, code, options):
        source = save_lerobot(tmp_path / "30", model, "pi05")
        only_error(self.make(invoke, source, preset, *options), code)
        assert not Path("out").exists()

    def test_all_that_nobody_says_may_be_assumed(self, invoke, store, tmp_path, preset, model):
        source = save_lerobot(tmp_path / "run" / "30", model, "pi05")
        result = self.make(invoke, source, preset, "--assume", "all")
        assert result.exit_code == 0, result.output
        bundle = read_bundle("out/bundles/run/30")
        assert bundle.config["not_known"] == []
        assert set(bundle.config["assumed"]) == {"prompt", "control_hz", "state", "actions", "tokenizer"}

    def test_how_it_is_executed_is_the_users_choice(self, invoke, store, tmp_path, preset, model):
        source = save_lerobot(tmp_path / "run" / "30", model, "pi05")
        result = self.make(invoke, source, preset, "--overrides", "policy.action_chunk=4")
        assert result.exit_code == 0, result.output
        assert "policy.action_chunk 4 (yours); config.json: n_action_steps says 10" in result.stdout
        bundle = read_bundle("out/bundles/run/30")
        assert (bundle.job["policy"]["action_chunk"], bundle.config["assumed"]) == (4, {"action_chunk": 4})

    def test_what_the_dataset_says_is_not_assumed(self, invoke, store, rlinf, small_dataset):
        options = ("--preset", SMALL_PRESET, "--dataset", small_dataset, "--assume", "control_hz=5")
        only_error(invoke("bundle", "make", rlinf / "global_step_4", *options), "needless-assumption")

    def test_what_is_never_read_may_be_missing(self, invoke, store, tmp_path, preset, model):
        source = tmp_path / "run" / "5"
        source.mkdir(parents=True)
        save_file({n: t.clone() for n, t in without_the_unread(model.state_dict()).items()}, source / "m.safetensors")
        (source / "norm_stats.json").write_text(norm_stats_json())
        result = self.make(invoke, source, preset)
        assert result.exit_code == 0, result.output
        count = len(model.state_dict())
        assert f"{count - 1} of {count} parameters are stored; 1 is not and is never read" in result.stdout
        assert invoke("bundle", "verify", "out/bundles/run/5").exit_code == 0
