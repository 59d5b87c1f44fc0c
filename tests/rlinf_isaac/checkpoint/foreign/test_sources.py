from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rlinf_isaac.checkpoint.foreign.sources import find_source
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.ground.errors import InvalidJob

STATS, OTHER_STATS = b'{"norm_stats": {"state": {}, "actions": {}}}', b'{"norm_stats": {}}'


def tree(root: Path, *names: str, stats: bytes = STATS) -> Path:
    """Files by name: safetensors are well-formed, norm stats hold `stats`."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.name == "norm_stats.json":
            file.write_bytes(stats)
        elif file.name == "metadata.pt":
            torch.save({"global_step": 30000}, file)
        elif file.suffix == ".safetensors":
            write_safetensors(file, "action_in_proj.weight")
        else:
            file.write_bytes(b"?")
    return root


def write_safetensors(file: Path, name: str) -> None:
    header = json.dumps({name: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + b"\0")


def relative(source, *files: Path) -> list[str]:
    return [file.relative_to(source.path).as_posix() for file in files]


def refusal(path: Path, **given: Path) -> str:
    with pytest.raises(InvalidJob) as error:
        find_source(path, **given)
    (problem,) = error.value.problems
    assert str(path) in problem.cause or given
    return problem.code


class TestLayouts:
    def test_openpi(self, tmp_path):
        names = ("model.safetensors", "metadata.pt", "optimizer.pt", "assets/isaaclab_stack_cube/norm_stats.json")
        source = find_source(tree(tmp_path / "pi05_stack" / "30000", *names))
        assert (source.kind, source.step, source.asset_id) == ("openpi", 30000, "isaaclab_stack_cube")
        assert source.weights.format == "safetensors"
        assert relative(source, *source.weights.files) == ["model.safetensors"]
        assert source.norm_stats.sha256 == bytes_digest(STATS)
        assert relative(source, source.norm_stats.path) == [names[-1]]
        assert source.notes == ()

    @pytest.mark.parametrize("inside", ["", "actor", "actor/model_state_dict", "actor/dcp_checkpoint"])
    def test_rlinf_training_checkpoint_and_any_directory_inside_it(self, tmp_path, inside):
        root = tree(
            tmp_path / "exp/checkpoints/global_step_500",
            "actor/model_state_dict/full_weights.pt",
            "actor/dcp_checkpoint/.metadata",
            "actor/dcp_checkpoint/__0_0.distcp",
            "RLinf/IsaacLab-Stack-Cube-Data/norm_stats.json",
        )
        source = find_source(root / inside)
        assert source.path == root
        assert (source.kind, source.step, source.asset_id) == ("rlinf", 500, "RLinf/IsaacLab-Stack-Cube-Data")
        assert relative(source, *source.weights.files) == ["actor/model_state_dict/full_weights.pt"]
        assert "holds the same weights" in source.notes[0]

    def test_only_the_distributed_checkpoint(self, tmp_path):
        tree(tmp_path / "stats", "norm_stats.json")
        names = ("actor/dcp_checkpoint/.metadata", "actor/dcp_checkpoint/__0_0.distcp")
        root = tree(tmp_path / "global_step_7", *names)
        source = find_source(root, norm_stats=tmp_path / "stats/norm_stats.json")
        assert (source.kind, source.weights.format, source.step) == ("rlinf", "dcp", 7)
        assert relative(source, *source.weights.files) == list(names)
        assert source.asset_id is None

    def test_rlinf_deployment_directory(self, tmp_path):
        root = tree(tmp_path / "deploy", "model_state_dict/full_weights.pt", "libero/norm_stats.json")
        source = find_source(root)
        assert (source.kind, source.step, source.asset_id) == ("rlinf", None, "libero")

    def test_rlinf_model_directory_with_shards(self, tmp_path):
        root = tree(tmp_path / "model", "RLinf/Data/norm_stats.json")
        shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
        for name, key in zip(shards, ("a.weight", "b.weight"), strict=True):
            write_safetensors(root / name, key)
        index = {"weight_map": {"a.weight": shards[0], "b.weight": shards[1]}}
        (root / "model.safetensors.index.json").write_text(json.dumps(index))
        source = find_source(root)
        assert (source.kind, source.asset_id) == ("weights", "RLinf/Data")
        assert relative(source, *source.weights.files) == shards
        assert find_source(root / "model.safetensors.index.json") == source

    def test_loose_files(self, tmp_path):
        root = tree(tmp_path, "step_40/pi0.safetensors", "step_40/norm_stats.json", "a/x.pt", "a/norm_stats.json")
        named = find_source(root / "step_40/pi0.safetensors")
        assert named == find_source(root / "step_40")
        assert (named.kind, named.step, named.asset_id) == ("weights", 40, None)
        assert find_source(root / "a").weights.format == "torch"

    def test_a_bundle(self, tmp_path, make_bundle):
        bundle = make_bundle(tmp_path / "400")
        source = find_source(bundle.path)
        assert (source.kind, source.step, source.asset_id) == ("bundle", 400, "isaaclab_stack_cube")
        assert source.parent == bundle.digest
        assert len(source.norm_stats.places) == 2

    def test_given_parts_win(self, tmp_path):
        root = tree(tmp_path / "3", "model.safetensors", "full_weights.pt", "a/norm_stats.json")
        tree(tmp_path / "base/assets/cube", "norm_stats.json", stats=OTHER_STATS)
        stats = tmp_path / "base/assets/cube/norm_stats.json"
        source = find_source(root, norm_stats=stats, weights=root / "full_weights.pt")
        assert relative(source, *source.weights.files) == ["full_weights.pt"]
        assert (source.norm_stats.sha256, source.asset_id) == (bytes_digest(OTHER_STATS), "cube")

    def test_relative_paths(self, tmp_path, monkeypatch):
        tree(tmp_path / "25000", "model.safetensors", "assets/cube/norm_stats.json")
        monkeypatch.chdir(tmp_path / "25000")
        source = find_source(".")
        assert (source.step, source.asset_id) == (25000, "cube")

    def test_assets_in_the_path_of_the_checkpoint_itself(self, tmp_path):
        root = tree(tmp_path / "assets" / "mine" / "5", "model.safetensors", "cube/norm_stats.json")
        assert find_source(root).asset_id == "cube"


class TestNormStatsOfTheTraining:
    """RLinf saves none with its checkpoints, but the config of the run, which names the model that it started from."""

    ASSET = "RLinf/IsaacLab-Stack-Cube-Data"

    @pytest.fixture
    def base(self, tmp_path) -> Path:
        return tree(tmp_path / "base", f"{self.ASSET}/norm_stats.json", "model.safetensors")

    @pytest.fixture
    def checkpoint(self, tmp_path) -> Path:
        return tree(tmp_path / "log/exp/checkpoints/global_step_9", "actor/model_state_dict/full_weights.pt")

    @staticmethod
    def record(tmp_path: Path, model: str) -> None:
        (tmp_path / "log/tensorboard").mkdir()
        (tmp_path / "log/tensorboard/config.yaml").write_text(f"actor: {{model: {model}, lr: '${{x}}'}}\nx: 1\n")

    def test_they_are_found_with_the_base_model(self, tmp_path, base, checkpoint):
        self.record(tmp_path, f"{{model_path: {base}}}")
        source = find_source(checkpoint)
        assert source.norm_stats.path == base / self.ASSET / "norm_stats.json"
        assert (source.asset_id, source.step) == (self.ASSET, 9)
        assert f"names actor.model.model_path={base}" in source.notes[-1]

    def test_a_path_of_their_own_goes_before_the_model(self, tmp_path, base, checkpoint):
        other = tree(tmp_path / "other" / "cube", "norm_stats.json", stats=OTHER_STATS)
        self.record(tmp_path, f"{{model_path: {base}, openpi_data: {{norm_stats_path: {other}}}}}")
        source = find_source(checkpoint)
        assert (source.norm_stats.sha256, source.asset_id) == (bytes_digest(OTHER_STATS), "cube")

    def test_others_in_the_checkpoint_are_a_contradiction(self, tmp_path, base, checkpoint):
        self.record(tmp_path, f"{{model_path: {base}}}")
        tree(checkpoint, f"{self.ASSET}/norm_stats.json")
        assert len(find_source(checkpoint).norm_stats.places) == 2
        tree(checkpoint, f"{self.ASSET}/norm_stats.json", stats=OTHER_STATS)
        assert refusal(checkpoint) == "ambiguous-norm-stats"

    def test_those_of_other_datasets_beside_them_do_not_matter(self, tmp_path, base, checkpoint):
        self.record(tmp_path, f"{{model_path: {base}}}")
        tree(base, "libero/norm_stats.json", stats=OTHER_STATS)
        assert refusal(checkpoint) == "ambiguous-norm-stats"
        tree(checkpoint, f"{self.ASSET}/norm_stats.json")
        assert find_source(checkpoint).asset_id == self.ASSET

    def test_a_model_that_is_not_on_this_machine_is_named(self, tmp_path, checkpoint):
        self.record(tmp_path, "{model_path: /elsewhere/pi05}")
        with pytest.raises(InvalidJob, match=r"names actor\.model\.model_path=/elsewhere/pi05") as error:
            find_source(checkpoint)
        assert error.value.problems[0].code == "no-norm-stats"

    @pytest.mark.parametrize("text", ["{{{:::", "a: b: c", "!!python/object/apply:os.getcwd []", "actor: 3"])
    def test_a_config_that_says_nothing(self, tmp_path, checkpoint, text):
        self.record(tmp_path, "x")
        (tmp_path / "log/tensorboard/config.yaml").write_text(text)
        assert refusal(checkpoint, norm_stats=None) in ("rlinf-config", "no-norm-stats")


class TestRefusals:
    def test_nothing_there(self, tmp_path):
        assert refusal(tmp_path / "nowhere") == "missing-checkpoint"
        assert refusal(tmp_path) == "no-weights"
        assert refusal(tree(tmp_path, "notes.txt") / "notes.txt") == "no-weights"
        assert refusal(tree(tmp_path, "optimizer.pt", "metadata.pt")) == "no-weights"

    def test_a_directory_of_checkpoints(self, tmp_path):
        tree(tmp_path, "25000/model.safetensors", "30000/model.safetensors")
        with pytest.raises(InvalidJob, match=r"25000, 30000[\s\S]*name one of them: .*30000"):
            find_source(tmp_path)

    def test_jax(self, tmp_path):
        names = ("params/_METADATA", "assets/cube/norm_stats.json", "model.safetensors")
        assert refusal(tree(tmp_path, *names)) == "ambiguous-weights"

    @pytest.mark.parametrize(
        "names",
        [
            ("model.safetensors", "full_weights.pt"),
            ("model.safetensors", "actor/model_state_dict/full_weights.pt"),
            ("full_weights.pt", "actor/model_state_dict/full_weights.pt"),
            ("a.safetensors", "b.safetensors"),
            ("a.pt", "b.pth"),
            ("model.safetensors", "dcp_checkpoint/.metadata", "dcp_checkpoint/__0_0.distcp"),
        ],
    )
    def test_weights_that_may_disagree(self, tmp_path, names):
        tree(tmp_path, *names, "cube/norm_stats.json")
        with pytest.raises(InvalidJob) as error:
            find_source(tmp_path)
        (problem,) = error.value.problems
        assert problem.code == "ambiguous-weights"
        assert all(name in problem.cause for name in names if not name.endswith(".distcp"))

    def test_stray_shards(self, tmp_path):
        tree(tmp_path, "model-1.safetensors", "old.safetensors", "cube/norm_stats.json")
        index = {"weight_map": {"action_in_proj.weight": "model-1.safetensors"}}
        (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
        assert refusal(tmp_path) == "stray-weights"

    def test_an_incomplete_distributed_checkpoint(self, tmp_path):
        tree(tmp_path, "dcp_checkpoint/.metadata")
        assert refusal(tmp_path) == "weights-file-missing"
        tree(tmp_path / "other", "__0_0.distcp")
        assert refusal(tmp_path / "other") == "weights-file-missing"

    def test_a_damaged_header(self, tmp_path):
        tree(tmp_path, "norm_stats.json")
        (tmp_path / "model.safetensors").write_bytes(b"\xff" * 40)
        assert refusal(tmp_path) == "damaged-safetensors"

    def test_no_norm_stats(self, tmp_path):
        assert refusal(tree(tmp_path, "model.safetensors")) == "no-norm-stats"
        assert refusal(tmp_path, norm_stats=tmp_path / "nowhere.json") == "no-norm-stats"

    def test_norm_stats_that_differ_are_listed_with_their_digests(self, tmp_path):
        tree(tmp_path, "model.safetensors", "assets/cube/norm_stats.json")
        tree(tmp_path, "cube/norm_stats.json", stats=OTHER_STATS)
        with pytest.raises(InvalidJob) as error:
            find_source(tmp_path)
        (problem,) = error.value.problems
        assert problem.code == "ambiguous-norm-stats"
        for stats, name in ((STATS, "assets/cube"), (OTHER_STATS, "cube")):
            assert f"{tmp_path / name / 'norm_stats.json'} sha256 {bytes_digest(stats)}" in problem.cause
        assert find_source(tmp_path, norm_stats=tmp_path / "cube/norm_stats.json").asset_id == "cube"

    def test_equal_norm_stats_under_two_names(self, tmp_path):
        tree(tmp_path, "model.safetensors", "assets/droid/norm_stats.json", "assets/cube/norm_stats.json")
        assert refusal(tmp_path) == "ambiguous-asset-id"

    def test_a_damaged_manifest(self, tmp_path, make_bundle):
        path = make_bundle(tmp_path / "4").path
        (path / "bundle.json").write_bytes(b"{}")
        assert refusal(path) == "manifest-damaged"


def test_it_needs_no_torch(tmp_path):
    tree(tmp_path, "full_weights.pt", "cube/norm_stats.json")
    code = (
        "import sys\nfrom rlinf_isaac.checkpoint.foreign.sources import find_source\n"
        f"find_source({str(tmp_path)!r})\nprint('torch' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "False"
