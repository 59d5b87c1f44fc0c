from __future__ import annotations

import json
import subprocess

import pytest

from mlflow_project.lineage import provenance as lineage
from rlinf_isaac.ground.errors import DatasetError


def git(directory, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "-C", directory, *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    git(tmp_path, "init", "-b", "main")
    (tmp_path / "code.py").write_text("a = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "Begin")
    return tmp_path


def test_a_clean_checkout(checkout):
    tags = lineage.provenance_tags(checkout)
    assert len(tags["mlflow.source.git.commit"]) == 40
    assert (tags["git.dirty"], tags["mlflow.source.git.branch"]) == ("false", "main")
    assert "git.diff.sha256" not in tags


def test_two_dirty_states_of_one_commit_differ(checkout):
    (checkout / "code.py").write_text("a = 2\n")
    first = lineage.provenance_tags(checkout)
    (checkout / "code.py").write_text("a = 3\n")
    second = lineage.provenance_tags(checkout)
    assert first["git.dirty"] == "true"
    assert first["mlflow.source.git.commit"] == second["mlflow.source.git.commit"]
    assert first["git.diff.sha256"] != second["git.diff.sha256"]


def test_an_untracked_file_is_dirt(checkout):
    (checkout / "new.py").touch()
    assert lineage.provenance_tags(checkout)["git.dirty"] == "true"


def test_without_git_there_are_no_git_tags(tmp_path):
    tags = lineage.provenance_tags(tmp_path)
    assert not [key for key in tags if "git" in key]
    assert tags["version.torch"]
    assert len(tags["lineage.env.sha256"]) == 64


def test_the_environment_is_not_recorded(tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_TOKEN", "hunter2")
    assert "hunter2" not in json.dumps(lineage.provenance_tags(tmp_path))


def test_digest_tags_leave_out_missing_links():
    assert lineage.digest_tags({"dataset": "ab", "parent": None}) == {"lineage.dataset.sha256": "ab"}


def test_simulator_tags_of_what_is_known():
    environment = {"backend": "mujoco-4.0.0", "image_size": 64, "task": "stack2"}
    known = {"sim.backend": "mujoco-4.0.0", "sim.image_size": "64"}
    assert lineage.simulator_tags(environment) == known | {"env.findings": "not checked"}
    assert lineage.simulator_tags({}) == {}


def test_a_lerobot_dataset(tmp_path):
    info = {
        "total_episodes": 3,
        "total_frames": 90,
        "total_tasks": 1,
        "fps": 20,
        "features": {"action": {"dtype": "float32"}, "observation.images.front": {"dtype": "image"}},
    }
    root = tmp_path / "stack2"
    (root / "meta").mkdir(parents=True)
    (root / "meta" / "info.json").write_text(json.dumps(info))
    dataset = lineage.lerobot_dataset(root, "ab" * 32)
    assert (dataset.name, dataset.digest, dataset.link) == ("stack2", "ab" * 16, "dataset")
    assert dataset.profile == {"episodes": 3, "frames": 90, "tasks": 1, "fps": 20}
    assert dataset.schema["mlflow_colspec"][0] == {"name": "action", "type": "float"}


def test_a_missing_dataset_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"info\.json"):
        lineage.lerobot_dataset(tmp_path, "ab" * 32)


def test_evaluations_of_the_same_episodes_are_one_dataset():
    settings = {"task": "stack2", "episodes": 50, "first_seed": 5000, "policy_seed": 0, "num_envs": 10}
    dataset = lineage.evaluation_dataset(settings)
    assert lineage.evaluation_dataset(settings | {"num_envs": 2}) == dataset
    assert lineage.evaluation_dataset(settings | {"first_seed": 1}).sha256 != dataset.sha256
    assert dataset.link == "evaluation"
