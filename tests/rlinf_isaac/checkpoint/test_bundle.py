from __future__ import annotations

import json
import os
import random
import shutil
import stat
from pathlib import Path

import pytest
import safetensors.torch
import torch
from huggingface_hub import save_torch_state_dict

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE, Manifest
from rlinf_isaac.checkpoint.write_bundle import seal
from rlinf_isaac.ground.digest import bytes_digest, file_digest, json_digest
from rlinf_isaac.ground.errors import BundleError, WeightsError

FILES = {
    "bundle.json",
    "config.json",
    "model.safetensors",
    "assets/isaaclab_stack_cube/norm_stats.json",
    "isaaclab_stack_cube/norm_stats.json",
}

UMASKS = [(0o022, 0o644, 0o755), (0o077, 0o600, 0o700), (0o002, 0o664, 0o775), (0o007, 0o660, 0o770)]


def files_of(path: Path) -> set[str]:
    return {file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()}


def reseal(path: Path, **changes: object) -> None:
    """Write a well-formed manifest over whatever `path` now holds: a careful forger, or a faulty writer."""
    old = Manifest.from_bytes((path / MANIFEST_FILE).read_bytes())
    arguments = {"asset_id": old.asset_id, "step": old.step, "lineage": old.lineage, "tied": old.tied, **changes}
    seal(path, **arguments)


class TestWrite:
    def test_layout_and_content(self, tmp_path, make_bundle):
        bundle = make_bundle(tmp_path / "400")
        assert files_of(bundle.path) == FILES
        assert bundle.step == 400
        assert bundle.config == {"model": {"pi05": False, "action_dim": 32}}
        assert bundle.manifest.key_count == 3
        assert bundle.manifest.dtypes == {"F32": 3}
        assert bundle.manifest.parameters == 5 * 3 + 3 + 3
        assert bundle.manifest.tied == {"model.embed_tokens.weight": "lm_head.weight"}
        assert bundle.weights_digest == file_digest(bundle.path / "model.safetensors")
        for place in ("assets/isaaclab_stack_cube", "isaaclab_stack_cube"):
            assert (bundle.path / place / "norm_stats.json").read_bytes() == bundle.norm_stats_bytes

    def test_lineage_names_dataset_stats_config_and_parent(self, tmp_path, make_bundle):
        bundle = make_bundle(tmp_path / "400")
        assert bundle.lineage == {
            "dataset": "d" * 64,
            "norm_stats": bytes_digest(bundle.norm_stats_bytes),
            "config": json_digest(bundle.config),
            "parent": None,
        }

    def test_what_was_written_reads_back_equal(self, tmp_path, make_bundle):
        assert make_bundle(tmp_path / "400") == read_bundle(tmp_path / "400")

    def test_equal_input_gives_equal_bytes_anywhere(self, tmp_path, make_bundle):
        one, other = make_bundle(tmp_path / "a"), make_bundle(tmp_path / "deep" / "b")
        assert one.digest == other.digest
        assert all((one.path / name).read_bytes() == (other.path / name).read_bytes() for name in FILES)

    def test_any_other_input_gives_another_digest(self, tmp_path, make_bundle, tiny_model):
        changes = [
            {},
            {"state_dict": tiny_model(seed=1).state_dict()},
            {"config": {"model": {}}},
            {"norm_stats": b"{}"},
            {"asset_id": "other"},
            {"step": 401},
            {"lineage": {"dataset": "e" * 64}},
        ]
        digests = {make_bundle(tmp_path / str(number), **change).digest for number, change in enumerate(changes)}
        assert len(digests) == len(changes)

    def test_the_safetensors_library_loads_it(self, tmp_path, make_bundle, tiny_model):
        bundle = make_bundle(tmp_path / "400", state_dict=tiny_model(seed=3).state_dict())
        model = tiny_model(seed=4)
        assert safetensors.torch.load_model(model, bundle.path / "model.safetensors", strict=True) == (set(), [])
        assert all(map(torch.equal, model.state_dict().values(), tiny_model(seed=3).state_dict().values()))

    @pytest.mark.parametrize(("umask", "file_mode", "directory_mode"), UMASKS)
    def test_modes_follow_the_umask(self, tmp_path, make_bundle, umask, file_mode, directory_mode):
        before = os.umask(umask)
        try:
            path = make_bundle(tmp_path / "400").path
        finally:
            os.umask(before)
        for entry in (path, *path.rglob("*")):
            assert stat.S_IMODE(entry.stat().st_mode) == (directory_mode if entry.is_dir() else file_mode), entry

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_non_finite_weights_are_refused_by_name(self, tmp_path, make_bundle, bad, dtype):
        state_dict = {"good": torch.ones(3, dtype=dtype), "action_out_proj.bias": torch.tensor([0, bad], dtype=dtype)}
        with pytest.raises(WeightsError, match=r"action_out_proj\.bias holds NaN or infinity"):
            make_bundle(tmp_path / "400", state_dict=state_dict)
        assert list(tmp_path.iterdir()) == []

    def test_an_existing_bundle_stays_unless_overwritten(self, tmp_path, make_bundle):
        first = make_bundle(tmp_path / "400")
        with pytest.raises(BundleError, match="exists already"):
            make_bundle(tmp_path / "400", config={})
        assert read_bundle(tmp_path / "400") == first
        assert make_bundle(tmp_path / "400", config={}, overwrite=True).config == {}
        assert [entry.name for entry in tmp_path.iterdir()] == ["400"]

    @pytest.mark.parametrize("asset_id", ["../up", "/abs", "", "a b", ".hidden", "config.json", "model.safetensors"])
    def test_asset_ids_that_are_no_relative_name(self, tmp_path, make_bundle, asset_id):
        with pytest.raises(BundleError, match="asset id"):
            make_bundle(tmp_path / "400", asset_id=asset_id)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"config": {"lr": float("nan")}}, "config cannot be written as JSON"),
            ({"config": {"path": Path("x")}}, "config cannot be written as JSON"),
            ({"norm_stats": b"{"}, r"norm_stats\.json is not JSON"),
            ({"norm_stats": b"[]"}, r"norm_stats\.json holds a JSON list"),
            ({"lineage": {"norm_stats": "0" * 64}}, "trained with norm stats 000"),
            ({"lineage": {"dataset": "not a digest"}}, "lineage link 'dataset'"),
            ({"step": -1}, "step -1"),
            ({"state_dict": {}}, "no tensors"),
        ],
    )
    def test_refused_arguments_leave_nothing_behind(self, tmp_path, make_bundle, changes, message):
        with pytest.raises(BundleError, match=message):
            make_bundle(tmp_path / "400", **changes)
        assert list(tmp_path.iterdir()) == []


class TestRead:
    @pytest.fixture
    def path(self, tmp_path, make_bundle) -> Path:
        return make_bundle(tmp_path / "400").path

    def test_single_byte_flips_anywhere_are_detected(self, path):
        chooser = random.Random(0)
        for name in sorted(FILES):
            whole = (path / name).read_bytes()
            for _ in range(60):
                damaged = bytearray(whole)
                damaged[chooser.randrange(len(whole))] ^= chooser.randrange(1, 256)
                (path / name).write_bytes(damaged)
                with pytest.raises(BundleError, match=name):
                    read_bundle(path)
            (path / name).write_bytes(whole)
        read_bundle(path)

    def test_truncations_and_appended_bytes_are_detected_without_hashing_the_weights(self, path):
        chooser = random.Random(0)
        for name in sorted(FILES):
            whole = (path / name).read_bytes()
            for damaged in [whole[: chooser.randrange(len(whole))] for _ in range(15)] + [whole + b"\0", b""]:
                (path / name).write_bytes(damaged)
                with pytest.raises(BundleError, match=name if name == MANIFEST_FILE else rf"{name} has \d+ bytes, not"):
                    read_bundle(path, verify=False)
            (path / name).write_bytes(whole)

    @pytest.mark.parametrize("name", sorted(FILES))
    def test_a_missing_file_is_named(self, path, name):
        (path / name).unlink()
        with pytest.raises(BundleError, match=name):
            read_bundle(path, verify=False)

    @pytest.mark.parametrize("name", ["notes.txt", "model-2.safetensors", "assets/other/norm_stats.json", ".hidden"])
    def test_an_added_file_is_named(self, path, name):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).touch()
        with pytest.raises(BundleError, match=f"{name} is not part of the bundle"):
            read_bundle(path, verify=False)

    @pytest.mark.parametrize("target", ["/etc", "nowhere"])
    def test_an_added_link_is_named(self, path, target):
        (path / "link").symlink_to(target)
        with pytest.raises(BundleError, match="link is not part of the bundle"):
            read_bundle(path)

    def test_files_may_be_links_as_in_the_hub_cache(self, path, tmp_path):
        shutil.move(path / "model.safetensors", tmp_path / "blob")
        (path / "model.safetensors").symlink_to(tmp_path / "blob")
        read_bundle(path)

    def test_weights_of_another_run_with_the_same_shapes(self, path, tmp_path, make_bundle, tiny_model):
        other = make_bundle(tmp_path / "800", state_dict=tiny_model(seed=7).state_dict())
        shutil.copy(other.path / "model.safetensors", path / "model.safetensors")
        assert not read_bundle(path, verify=False).verified
        with pytest.raises(BundleError, match=r"model\.safetensors is not the file that was sealed"):
            read_bundle(path)

    def test_norm_stats_of_another_run_even_when_sealed_again(self, path):
        for place in ("assets/isaaclab_stack_cube", "isaaclab_stack_cube"):
            (path / place / "norm_stats.json").write_bytes(b'{"norm_stats": {}}')
        with pytest.raises(BundleError, match="the weights were trained with norm stats"):
            reseal(path)

    def test_norm_stats_that_differ_between_openpis_and_rlinfs_place(self, path):
        (path / "isaaclab_stack_cube/norm_stats.json").write_bytes(b"{}")
        with pytest.raises(BundleError, match="differ; both must be"):
            reseal(path)

    @pytest.mark.parametrize(
        ("entry", "value"),
        [
            ("prompts", ["Stack."]),
            ("prompts", {"0": 7}),
            ("state_names", 7),
            ("action_names", [7]),
            ("control_hz", 10**39),
            ("images", {"front": [0, 0]}),
            ("job", {"model": [1]}),
            ("assumed", {"state": 7}),
            ("source", {"files": []}),
        ],
    )
    def test_a_description_of_another_form_even_when_sealed_again(self, path, entry, value):
        config = json.loads((path / "config.json").read_bytes())
        (path / "config.json").write_text(json.dumps({**config, entry: value}))
        reseal(path)
        with pytest.raises(BundleError, match=f"bundle-description.*{entry}"):
            read_bundle(path)

    def test_a_tie_to_a_tensor_that_is_not_there(self, path):
        with pytest.raises(BundleError, match="cannot be tied to nowhere"):
            reseal(path, tied={"embed": "nowhere"})

    def test_a_manifest_that_leaves_out_a_part(self, path):
        (path / "config.json").unlink()
        with pytest.raises(BundleError, match=r"config\.json is missing"):
            reseal(path)

    @pytest.mark.parametrize("what", ["missing", "file", "empty", "openpi"])
    def test_other_things_than_bundles(self, tmp_path, what):
        path = tmp_path / "thing"
        if what == "file":
            path.touch()
        elif what != "missing":
            path.mkdir()
        if what == "openpi":
            safetensors.torch.save_file({"w": torch.ones(1)}, path / "model.safetensors")
        with pytest.raises(BundleError, match="thing is not a checkpoint bundle"):
            read_bundle(path)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
    def test_an_unreadable_file_is_named(self, path):
        (path / "config.json").chmod(0)
        with pytest.raises(BundleError, match=r"config\.json cannot be read"):
            read_bundle(path)

    def test_a_sharded_bundle(self, path, tiny_model):
        (path / "model.safetensors").unlink()
        save_torch_state_dict(tiny_model().state_dict(), path, max_shard_size=60)
        reseal(path)
        bundle = read_bundle(path)
        shards = [name for name in bundle.manifest.files if name.endswith(".safetensors")]
        assert len(shards) > 1
        assert bundle.manifest.key_count == 3
        whole = (path / shards[-1]).read_bytes()
        (path / shards[-1]).write_bytes(whole[:-1] + b"\x55")
        with pytest.raises(BundleError, match=shards[-1]):
            read_bundle(path)


def test_the_manifest_holds_neither_paths_nor_times(tmp_path, make_bundle):
    text = (make_bundle(tmp_path / "400").path / MANIFEST_FILE).read_text()
    assert str(tmp_path) not in text
    assert set(json.loads(text)) == {
        "asset_id", "digest", "files", "format", "format_version", "lineage", "step", "tensors",
    }  # fmt: skip
