from __future__ import annotations

import json

import pytest

from rlinf_isaac.data.lerobot.meta import read_meta
from rlinf_isaac.ground.errors import DatasetError


def test_both_versions_give_the_same_meta(dataset_root, version, features):
    meta = read_meta(dataset_root)
    assert meta.version == version
    assert (meta.fps, meta.robot_type) == (20, "franka")
    assert {name: meta.features[name] for name in features} == features
    assert [episode.length for episode in meta.episodes] == [5, 12, 1]
    assert meta.tasks == {0: "Stack", 1: "Un\u2028stack"}
    assert meta.provenance is None
    for episode in meta.episodes:
        assert (dataset_root / episode.file).is_file()


def test_provenance(v21_root):
    assert read_meta(v21_root).provenance == {"seed": 3}


def test_feature_names_given_as_a_dict(v21_root, edit_json):
    features = json.loads((v21_root / "meta/info.json").read_text())["features"]
    features["action"]["names"] = {"motors": ["dx", "dy"]}
    edit_json(v21_root / "meta/info.json", features=features)
    assert read_meta(v21_root).features["action"].names == ("dx", "dy")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"codebase_version": "v2.0"}, "codebase_version 'v2.0' is not one of"),
        ({"codebase_version": None}, "codebase_version None"),
        ({"total_episodes": 4}, "total_episodes is 4, but .* 3 from 0 to 2"),
        ({"total_frames": 17}, "total_frames is 17, but .* sum to 18"),
        ({"features": {"action": {"dtype": "float32"}}}, "KeyError: 'shape'"),
        ({"features": None}, "AttributeError"),
        ({"fps": None}, "TypeError"),
        ({"fps": 29.97}, "not a whole number above 0"),
        ({"fps": 0}, "not a whole number above 0"),
        ({"data_path": "data/{nothing}.parquet"}, "which lerobot does not fill in"),
        ({"data_path": "../other.parquet"}, "leads out of the dataset"),
        ({"data_path": "/etc/passwd"}, "leads out of the dataset"),
    ],
)
def test_wrong_info(dataset_root, edit_json, changes, message):
    edit_json(dataset_root / "meta/info.json", **changes)
    with pytest.raises(DatasetError, match=message):
        read_meta(dataset_root)


@pytest.mark.parametrize("name", ["info.json", "tasks.jsonl", "episodes.jsonl"])
def test_missing_or_torn_meta_file_is_named(v21_root, name):
    path = v21_root / "meta" / name
    path.write_text(path.read_text()[:-5])
    with pytest.raises(DatasetError, match=name):
        read_meta(v21_root)
    path.unlink()
    with pytest.raises(DatasetError, match=f"{name} is missing"):
        read_meta(v21_root)


@pytest.mark.parametrize("name", ["tasks.parquet", "episodes/chunk-000/file-000.parquet"])
def test_missing_or_truncated_v30_meta_is_named(tmp_path, random_episodes, write_v30, name):
    path = write_v30(tmp_path / "data", random_episodes([2, 3])) / "meta" / name
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DatasetError, match=name):
        read_meta(tmp_path / "data")
    path.unlink()
    with pytest.raises(DatasetError, match=r"missing|no parquet file"):
        read_meta(tmp_path / "data")


def test_duplicated_and_missing_episodes(v21_root):
    path = v21_root / "meta/episodes.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[0], lines[1]]))
    with pytest.raises(DatasetError, match="the dataset was cut or edited"):
        read_meta(v21_root)
