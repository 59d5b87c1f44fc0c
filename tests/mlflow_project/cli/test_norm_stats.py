from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import SMALL_PRESET, only_error

from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import compute_norm_stats, digest, load
from rlinf_isaac.data.norm_stats.keys import identity, restore

SMALL = ("--preset", SMALL_PRESET)


def runs_of(store: str) -> list:
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("rlinf-isaac")
    return client.search_runs([experiment.experiment_id]) if experiment else []


@pytest.fixture
def stats_file(small_dataset, tmp_path) -> Path:
    compute_norm_stats(LeRobotDataset(small_dataset), 8).save(tmp_path / "in" / "norm_stats.json")
    return tmp_path / "in" / "norm_stats.json"


@pytest.fixture
def misread_file(stats_file) -> Path:
    stats = json.loads(stats_file.read_text())["norm_stats"]
    misread = {"observation.state": stats["state"], "action": stats["actions"], "index": stats["actions"]}
    path = stats_file.with_name("misread.json")
    path.write_text(json.dumps({"norm_stats": misread}, indent=3))
    return path


def test_stats_come_with_what_they_were_computed_from(invoke, store, small_dataset, tmp_path):
    result = invoke("norm_stats", "--dataset", small_dataset, "--output", "out", *SMALL)
    assert result.exit_code == 0, result.output
    (path,) = tmp_path.glob("out/norm_stats/*/norm_stats.json")
    stats, dataset_digest = load(path), LeRobotDataset(small_dataset).digest
    assert (stats.state.dim, stats.actions.dim) == (23, 7)
    assert path.parent.name == f"{dataset_digest[:12]}-h8-b32"
    settings = {"action_horizon": 8, "batch_size": 32, "delta_actions": "none"}
    provenance = json.loads((path.parent / "provenance.json").read_text())
    assert provenance == {"dataset": dataset_digest, **settings, "norm_stats": stats.digest}

    (run,) = runs_of(store)
    assert run.data.tags["lineage.norm_stats.sha256"] == stats.digest
    assert run.data.tags["lineage.dataset.sha256"] == dataset_digest
    artifacts = MlflowClient(store).list_artifacts(run.info.run_id)
    assert "norm_stats.json" in {file.path for file in artifacts}


def test_other_settings_are_other_stats(invoke, store, small_dataset, tmp_path):
    for text in ("none", "norm_stats.batch_size=1,policy.delta_actions='6, -1'"):
        result = invoke("norm_stats", "--dataset", small_dataset, "--output", "out", *SMALL, "--overrides", text)
        assert result.exit_code == 0, result.output
    plain, delta = sorted(tmp_path.glob("out/norm_stats/*"), key=lambda path: len(path.name))
    assert delta.name.endswith("-h8-b1-d6_-1")
    expected = compute_norm_stats(LeRobotDataset(small_dataset), 8, batch_size=1, delta_actions="6,-1")
    assert load(delta / "norm_stats.json") == expected != load(plain / "norm_stats.json")
    assert json.loads((delta / "provenance.json").read_text())["delta_actions"] == "6,-1"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ([], "no-dataset"),
        (["--check", "a", "--canonicalise", "b"], "bad-options"),
        (["--dataset", "{dataset}", "--preset", "tinny"], "unknown-preset"),
        (["--dataset", "{dataset}", "--overrides", "norm_stats.batch_size=100000"], "norm-stats-batch"),
        (["--dataset", "{dataset}", "--overrides", "policy.delta_actions=six"], "bad-delta-mask"),
        (["--check", "missing.json"], "norm-stats-missing"),
        (["--canonicalise", "missing.json", "--norm-stats-mode", "canonical"], "norm-stats-missing"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_run_exists(invoke, store, small_dataset, tmp_path, options, code):
    before = sorted(tmp_path.rglob("*"))
    only_error(invoke("norm_stats", *(option.format(dataset=small_dataset) for option in options)), code)
    assert runs_of(store) == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_missing_dataset_is_named(invoke, store):
    result = invoke("norm_stats", "--dataset", "nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert runs_of(store) == []


def test_a_dataset_of_another_task_is_refused(invoke, small_dataset):
    result = invoke("norm_stats", "--dataset", small_dataset, "--overrides", "env.task=stack3")
    assert result.exit_code == 2
    assert "feature-dim" in result.stderr
    assert "prompt" not in result.stderr, "statistics are of columns, whatever was said to the robot"


def test_the_tokenizer_may_be_elsewhere(invoke, store, small_dataset):
    Path("mine.yaml").write_text("base: tiny\npolicy: {tokenizer: paligemma.model}\n")
    result = invoke("norm_stats", "--dataset", small_dataset, "--preset", "mine.yaml")
    assert result.exit_code == 0, result.output


class TestCheck:
    def test_prints_every_dim_and_writes_nothing(self, invoke, store, small_dataset, stats_file, tmp_path):
        before = sorted(tmp_path.rglob("*"))
        result = invoke("norm_stats", "--check", stats_file, "--dataset", small_dataset, *SMALL)
        assert result.exit_code == 0, result.output
        assert "recomputed  equal" in result.stdout
        for text in ("state eef_x", "actions gripper", "normalised", digest(stats_file.read_bytes())):
            assert text in result.stdout
        assert runs_of(store) == []
        assert sorted(tmp_path.rglob("*")) == before

    def test_warnings_do_not_refuse(self, invoke, stats_file):
        content = json.loads(stats_file.read_text())
        content["norm_stats"]["state"]["std"][0] = 0.0
        stats_file.write_text(json.dumps(content))
        result = invoke("norm_stats", "--check", stats_file)
        assert result.exit_code == 0, result.output
        assert "norm-stats-near-constant" in result.stderr
        assert "near-constant" in result.stdout

    def test_errors_do(self, invoke, small_dataset, stats_file, misread_file):
        only_error(invoke("norm_stats", "--check", misread_file), "norm-stats-keys")
        only_error(invoke("norm_stats", "--check", stats_file, "--overrides", "env.task=stack3"), "norm-stats-dim")
        content = json.loads(stats_file.read_text())
        content["norm_stats"]["actions"]["mean"][2] += 1.0
        stats_file.write_text(json.dumps(content))
        result = invoke("norm_stats", "--check", stats_file, "--dataset", small_dataset)
        only_error(result, "norm-stats-range")
        assert "actions dz" in result.stderr


class TestCanonicalise:
    def test_without_a_mode_it_names_both(self, invoke, store, misread_file):
        result = invoke("norm_stats", "--canonicalise", misread_file)
        only_error(result, "norm-stats-mode")
        assert "canonical if" in result.stderr
        assert "identity if" in result.stderr
        assert runs_of(store) == []

    @pytest.mark.parametrize("mode", ["canonical", "identity"])
    def test_is_recorded_and_can_be_undone(self, invoke, store, misread_file, stats_file, tmp_path, mode):
        arguments = ["--canonicalise", misread_file, "--norm-stats-mode", mode, "--output", "out"]
        result = invoke("norm_stats", *arguments)
        assert result.exit_code == 0, result.output
        assert "observation.state -> state" in result.stdout
        assert "index dropped" in result.stdout
        source = digest(misread_file.read_bytes())
        (path,) = tmp_path.glob("out/norm_stats/*/norm_stats.json")
        assert path.parent.name == f"{source[:12]}-{mode}"
        if mode == "canonical":
            assert path.read_bytes() == stats_file.read_bytes()
        else:
            assert load(path).state.as_dict() == identity(23).as_dict()
        provenance = json.loads((path.parent / "provenance.json").read_text())
        assert provenance["norm_stats"] == load(path).digest
        assert provenance["canonicalised"]["mode"] == mode
        assert restore(provenance["canonicalised"]) == misread_file.read_bytes()
        (run,) = runs_of(store)
        assert run.data.tags["lineage.norm_stats.sha256"] == load(path).digest
        assert run.data.tags["lineage.norm_stats.source_sha256"] == source

    def test_what_was_known_of_the_source_stays_known(self, invoke, store, stats_file, tmp_path):
        known = {"dataset": "d" * 64, "action_horizon": 8, "norm_stats": digest(stats_file.read_bytes())}
        (stats_file.parent / "provenance.json").write_text(json.dumps(known))
        arguments = ["--canonicalise", stats_file, "--norm-stats-mode", "canonical", "--output", "out"]
        assert invoke("norm_stats", *arguments).exit_code == 0
        (path,) = tmp_path.glob("out/norm_stats/*/provenance.json")
        provenance = json.loads(path.read_text())
        del provenance["canonicalised"]
        assert provenance == known

    def test_a_well_keyed_file_is_not_the_identity(self, invoke, stats_file):
        arguments = ["--canonicalise", stats_file, "--norm-stats-mode", "identity"]
        only_error(invoke("norm_stats", *arguments), "norm-stats-identity")
