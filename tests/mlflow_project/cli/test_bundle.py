"""`bundle` on real checkpoints of a short training, taken apart into the layouts of OpenPI and RLinf."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from support import SHORT_EVALUATION, SMALL, only_error, rows_of

from rlinf_isaac.checkpoint.bundle import read_bundle, seal
from rlinf_isaac.checkpoint.weights import load_weights
from rlinf_isaac.config import build_config
from rlinf_isaac.data.lerobot_reader import LeRobotDataset
from rlinf_isaac.digest import bytes_digest, file_digest
from rlinf_isaac.pi0.model import Pi0

OVERRIDES = ",".join(SMALL)
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
            options = ("--preset", "tiny", "--overrides", OVERRIDES, "--dataset", small_dataset, "--output", "out")
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
        result = invoke("eval", "--ckpt-root", root, *evaluation)
        assert result.exit_code == 0, result.output
        assert [row["checkpoint"] for row in rows_of(tmp_path / "out/eval")] == [
            digest for step in ("2", "4") for digest in [read_bundle(root / step).digest] * 2
        ]

    def test_the_run_holds_manifest_config_and_norm_stats(self, invoke, store, rlinf):
        options = ("--preset", "tiny", "--overrides", OVERRIDES, "--output", "out")
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
        options = ("--preset", "tiny", "--overrides", OVERRIDES, "--output", "out")
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
            ("weights-keys", ("--overrides", f"{OVERRIDES},model.pi05=true")),
            ("weights-shapes", ("--overrides", f"{OVERRIDES},model.vocab_size=299")),
            ("norm-stats-dim", ("--overrides", f"{OVERRIDES},policy.state_layout=proprio")),
            ("no-norm-stats", ("--norm-stats", "nowhere.json")),
            ("missing-checkpoint", ("--weights", "nowhere.pt")),
            ("exclude-matches-nothing", ("--exclude", "value_head.*")),
            ("bad-step", ("--step", "last")),
            ("unknown-preset", ("--preset", "tinny")),
            ("bad-asset-id", ("--asset-id", "../up")),
            ("bad-name", ("--name", "../up")),
            ("bad-value", ("--overrides", f"{OVERRIDES},policy.action_chunk=0")),
        ],
    )
    def test_refusals_write_nothing(self, invoke, store, rlinf, code, options):
        before = ("--preset", "tiny", "--overrides", OVERRIDES, "--output", "out")
        only_error(invoke("bundle", "make", rlinf / "global_step_4", *before, *options), code)
        assert not Path("out").exists()
        assert MlflowClient(store).get_experiment_by_name("rlinf-isaac") is None

    def test_an_existing_bundle_needs_force(self, invoke, store, rlinf):
        options = ("--preset", "tiny", "--overrides", OVERRIDES, "--output", "out")
        assert invoke("bundle", "make", rlinf / "global_step_4", *options).exit_code == 0
        first = read_bundle("out/bundles/stack_cube_sft/4")
        only_error(invoke("bundle", "make", rlinf / "global_step_4", *options), "bundle-exists")
        assert invoke("bundle", "make", rlinf / "global_step_4", *options, "--force").exit_code == 0
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
