from __future__ import annotations

import json
import os

import pytest

from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import NormStats, compute_norm_stats, digest, load
from rlinf_isaac.ground.digest import file_digest


def test_schema_is_openpis(stats):
    content = json.loads(stats.to_json())
    assert list(content) == ["norm_stats"]
    assert list(content["norm_stats"]) == ["state", "actions"]
    assert list(content["norm_stats"]["state"]) == ["mean", "std", "q01", "q99"]
    assert content["norm_stats"]["actions"]["mean"] == stats.actions.mean.tolist()
    assert stats.to_json().startswith('{\n  "norm_stats": {\n    "state": {\n      "mean": [\n        ')


def test_save_and_load(stats, tmp_path):
    path = tmp_path / "a" / "norm_stats.json"
    stats.save(path)
    assert load(path) == stats
    assert file_digest(path) == stats.digest == digest(path.read_bytes())
    assert load(path).actions.dim == 2


def test_computing_again_gives_the_same_bytes(stats, dataset):
    again = compute_norm_stats(LeRobotDataset(dataset.root), 10)
    assert again.to_json() == stats.to_json()
    assert compute_norm_stats(dataset, 11).digest != stats.digest


def test_is_written_whole(stats, tmp_path, monkeypatch):
    path = tmp_path / "norm_stats.json"
    stats.save(path)
    before = path.read_bytes()

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(OSError, match="No space"):
        NormStats(state=stats.actions, actions=stats.state).save(path)
    assert path.read_bytes() == before
