"""Evaluations of other tools as runs: what is recorded, what `compare` pairs, and a process that is killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from support import only_error

from mlflow_project import api
from mlflow_project.cli import cli
from mlflow_project.cli.ingest import command
from mlflow_project.comparison.compare import compare
from mlflow_project.comparison.evaluations import read_evaluations
from mlflow_project.vocabulary import COMPARISON_PAGE
from rlinf_isaac.ground.errors import InvalidJob

TESTS = Path(__file__).parents[2]
FILES = TESTS / "rlinf_isaac/foreign_results/files"


def table(path: Path, policies: str = "ab", seeds: range = range(8)) -> Path:
    rows = [
        f"push,{seed},{policy},{int((seed + i) % 3 > 0)},{seed}" for i, policy in enumerate(policies) for seed in seeds
    ]
    path.write_text("\n".join(["task,seed,policy,success,length", *rows]) + "\n")
    return path


@pytest.fixture
def ingest(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)

    def ingest(source: Path, *words: str):
        words = ("--source", str(source), *words, "--output", str(tmp_path / "output"))
        return CliRunner().invoke(command, words, catch_exceptions=False)

    return ingest


def sources(store: str) -> list:
    client = MlflowClient(store)
    experiments = [each.experiment_id for each in client.search_experiments()]
    found = client.search_runs(experiments, "tags.`ingest.digest` != ''", order_by=["attributes.start_time"])
    return [run for run in found if run.info.status == "FINISHED"]


def test_a_table_is_recorded_once_and_its_policies_are_paired(ingest, store, tmp_path):
    path = table(tmp_path / "t.csv")
    assert ingest(path).exit_code == 0
    assert "recorded already" in ingest(path).output
    (run,) = sources(store)
    assert len(run.data.tags["ingest.sha256"]) == 64
    evaluations = read_evaluations(MlflowClient(store), [run.info.run_id])
    assert {each.name: each.success.successes for each in evaluations} == {"a": 5, "b": 6}
    (pair,) = compare(evaluations).pairs
    assert pair.unpaired is None
    assert pair.counts.n == 8
    table_ = json.loads(
        (Path(run.info.artifact_uri).parents[1] / evaluations[0].run / "artifacts/episodes.json").read_text()
    )
    assert "length" in table_["columns"]
    assert not {"policy_seed", "episode_return"} & {*table_["columns"]}


def test_across_sources_the_tool_the_task_and_the_seeds_decide(ingest, store, tmp_path):
    rates = tmp_path / "r.csv"
    rates.write_text("policy,success_rate,n\nold,0.859375,64\n")
    for path in (
        table(tmp_path / "a.csv", "a"),
        table(tmp_path / "b.csv", "b"),
        table(tmp_path / "c.csv", "c", range(9, 15)),
    ):
        assert ingest(path).exit_code == 0
    assert ingest(rates, "--task", "push").exit_code == 0
    assert ingest(FILES / "lerobot_0.4.4", "--task", "push", "--policy", "act").exit_code == 0
    runs = [run.info.run_id for run in sources(store)]
    one = {each.name: each for each in read_evaluations(MlflowClient(store), runs)}

    def reason(first: str, second: str) -> str | None:
        return compare([one[first], one[second]]).pairs[0].unpaired

    assert reason("a", "b") is None
    assert "different seeds" in reason("a", "c")
    assert "only the numbers of successes" in reason("a", "old")
    assert "different tools (lerobot and table)" in reason("a", "act")


def test_from_python(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    path = tmp_path / "r.csv"
    path.write_text("success_rate\n0.75\n")
    with pytest.raises(InvalidJob):
        api.ingest(path)
    with pytest.raises(InvalidJob, match="did you mean episodes"):
        api.ingest(path, episode=8)
    run = api.ingest(path, output=tmp_path / "output", episodes=8, policy="act")
    assert run == api.ingest(path, output=tmp_path / "output", episodes=8, policy="act")
    assert list(api.rows(run)["success"]).count(True) == 6


def test_a_bare_rate_is_refused_before_there_is_a_store(ingest, tmp_path):
    (tmp_path / "mlflow.db").unlink()
    rates = tmp_path / "r.csv"
    rates.write_text("policy,success_rate\nold,0.859375\n")
    only_error(ingest(rates), "rate-without-n")
    only_error(ingest(table(tmp_path / "t.csv"), "--episodes", "many"), "ingest-option")
    assert not (tmp_path / "mlflow.db").exists()


def test_killed_in_the_middle_and_ingested_again(ingest, store, tmp_path):
    path = table(tmp_path / "t.csv")
    words = ["ingest", "--source", str(path), "--output", str(tmp_path / "output")]
    script = f"""from mortal import die_at
from mlflow_project.cli import cli
import mlflow_project.tracked.ingest
die_at(("ingest_recorder.py",), 60)
cli({words!r})"""
    places = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    environment = os.environ | {"PYTHONPATH": places, "MLFLOW_TRACKING_URI": store}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == -9
    assert sources(store) == []
    again = ingest(path)
    assert again.exit_code == 0
    assert "recorded already" not in again.output
    (run,) = sources(store)
    assert len(read_evaluations(MlflowClient(store), [run.info.run_id])) == 2


def test_ingested_trainings_are_compared_as_arms_and_none_can_be_promoted(ingest, store, tmp_path):
    assert ingest(table(tmp_path / "results.csv", "abcd")).exit_code == 0
    client, (source,) = MlflowClient(store), sources(store)
    a, b, c, d = (each.run for each in read_evaluations(client, [source.info.run_id]))
    output = ("--output", str(tmp_path / "output"))
    arms = ("--arm", f"sft={a},{b}", "--arm", f"rl={c},{d}")
    result = CliRunner().invoke(cli, ["compare", source.info.run_id, *arms, *output], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert "2 trainings" in result.output
    assert "Welch p" in result.output
    (run,) = [each for each in client.search_runs([source.info.experiment_id]) if "compare" in each.info.run_name]
    page = Path(client.download_artifacts(run.info.run_id, COMPARISON_PAGE, str(tmp_path))).read_text()
    assert 'id="arms"' in page
    table_file = Path(client.download_artifacts(run.info.run_id, "arms.json", str(tmp_path))).read_text()
    assert json.loads(table_file)["data"][0][:2] == ["sft", 2]

    frame = api.compare(source.info.run_id, arms={"sft": [a, b], "rl": [c, d]}).arms()
    assert list(frame["trainings"]) == [2, 2]

    only_error(CliRunner().invoke(cli, ["compare", a, "--arm", f"sft={a},{b}", *output]), "bad-arm")
    refused = CliRunner().invoke(cli, ["promote", a, *output])
    only_error(refused, "ingested-candidate")
    assert "was evaluated by another tool" in refused.stderr
