from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from support import small_config

from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import compute_norm_stats, load, settings_of
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.preflight import check_dataset, check_training_data, suitable_job


def codes(problems):
    return [problem.code for problem in problems]


def errors(problems):
    """Without the warnings: two demonstrations leave some dims near-constant."""
    return [problem for problem in problems if problem.level == "error"]


def test_a_dataset_of_the_job_has_no_problem(small_dataset):
    assert check_dataset(small_config(), small_dataset) == []


def test_a_dataset_that_differs_is_described(small_dataset, tmp_path):
    root = tmp_path / "other"
    shutil.copytree(small_dataset, root)
    info = json.loads((root / "meta" / "info.json").read_text())
    info["fps"] = 30
    info["features"]["observation.images.side"] = info["features"].pop("observation.images.wrist")
    (root / "meta" / "info.json").write_text(json.dumps(info))
    tasks = (root / "meta" / "tasks.jsonl").read_text()
    (root / "meta" / "tasks.jsonl").write_text(tasks.replace("Stack", "Pile"))
    problems = check_dataset(small_config(["policy.state_layout=proprio"]), root)
    assert sorted(codes(problems)) == ["feature-dim", "fps", "no-feature", "prompt", "unused-camera"]
    assert "observation.images.side" in next(problem.cause for problem in problems if problem.code == "no-feature")


def test_the_suitable_job_of_a_dataset_is_found(small_dataset, tmp_path):
    assert suitable_job(small_dataset) == ("stack2", "proprio+cubes", [])
    root = tmp_path / "other"
    shutil.copytree(small_dataset, root)
    info = json.loads((root / "meta" / "info.json").read_text())
    (root / "meta" / "info.json").write_text(json.dumps(info | {"fps": 30}))
    task, layout, problems = suitable_job(root)
    assert (task, layout, codes(problems)) == ("stack2", "proprio+cubes", ["fps"])
    (root / "meta" / "info.json").unlink()
    with pytest.raises(DatasetError):
        suitable_job(root)


def test_training_data_and_its_own_norm_stats_have_no_problem(small_dataset, own_stats):
    for quick in (True, False):
        assert errors(check_training_data(small_config(), small_dataset, own_stats, quick=quick)) == []
    assert check_training_data(small_config(), small_dataset, None, quick=True) == []


@pytest.fixture
def own_stats(small_dataset, tmp_path):
    """norm_stats.json of the small dataset with its provenance, as the verb writes them."""
    dataset, settings = LeRobotDataset(small_dataset), settings_of(small_config())
    stats = compute_norm_stats(dataset, **settings)
    stats.save(tmp_path / "norm_stats.json")
    provenance = {"dataset": dataset.digest, **settings, "norm_stats": stats.digest}
    (tmp_path / "provenance.json").write_text(json.dumps(provenance))
    return tmp_path / "norm_stats.json"


@pytest.mark.parametrize(
    ("key", "value", "code"),
    [
        ("dataset", "0" * 64, "norm-stats-mismatch"),
        ("action_horizon", 50, "norm-stats-mismatch"),
        ("batch_size", 1, "norm-stats-mismatch"),
        ("delta_actions", "6,-1", "norm-stats-mismatch"),
        ("norm_stats", "0" * 64, "norm-stats-edited"),
    ],
)
def test_norm_stats_of_something_else_are_named(small_dataset, own_stats, key, value, code):
    provenance = json.loads(own_stats.with_name("provenance.json").read_text())
    own_stats.with_name("provenance.json").write_text(json.dumps(provenance | {key: value}))
    (problem,) = errors(check_training_data(small_config(), small_dataset, own_stats, quick=False))
    assert problem.code == code
    assert str(value) in problem.cause
    assert str(provenance[key]) in problem.cause


def test_without_a_record_the_values_vouch_for_norm_stats(small_dataset, own_stats):
    own_stats.with_name("provenance.json").unlink()
    assert errors(check_training_data(small_config(), small_dataset, own_stats, quick=True)) == []
    stats = load(own_stats)
    replace(stats, actions=replace(stats.actions, mean=stats.actions.mean + 0.2 * stats.actions.std)).save(own_stats)
    found = errors(check_training_data(small_config(), small_dataset, own_stats, quick=True))
    assert codes(found) == ["norm-stats-provenance"]


def test_missing_norm_stats_are_named(small_dataset, tmp_path):
    found = check_training_data(small_config(), small_dataset, tmp_path / "nowhere.json", quick=True)
    assert codes(found) == ["norm-stats-missing"]


def test_a_large_dataset_is_not_hashed_by_a_quick_check(small_dataset, own_stats, monkeypatch, tmp_path):
    monkeypatch.setenv("RLINF_ISAAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("rlinf_isaac.preflight.norm_stats.HASHED_AT_ONCE", 1000)
    problems = check_training_data(small_config(), small_dataset, own_stats, quick=True)
    assert errors(problems) == []
    assert "not-hashed" in codes(problems)
    assert "not-hashed" not in codes(check_training_data(small_config(), small_dataset, own_stats, quick=False))
