from __future__ import annotations

from mlflow import MlflowClient
from support import SMALL_PRESET, kill_when, use_dead_server


def test_nothing_to_do(invoke):
    result = invoke("sync", "--output", "out")
    assert result.exit_code == 0
    assert "0 journals" in result.stdout


def test_what_a_dead_server_missed_arrives_at_another(invoke, start, store, small_dataset, dead_uri, monkeypatch):
    with monkeypatch.context() as patch:
        use_dead_server(patch, dead_uri)
        process = start("norm_stats", "--dataset", small_dataset, "--output", "out", "--preset", SMALL_PRESET)
        _, log = process.communicate()
        assert process.returncode == 0, "a dead server does not fail the work"
        assert "rlinf-isaac sync --output" in log
        assert invoke("sync", "--output", "out").exit_code == 1, "it is still dead"
    for _ in range(2):
        result = invoke("sync", "--output", "out", "--tracking-uri", store)
        assert result.exit_code == 0, result.output
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    assert run.info.status == "FINISHED"
    assert "lineage.norm_stats.sha256" in run.data.tags


def test_a_killed_verb_is_ended_killed(invoke, start, store, small_dataset):
    process = start("sft", "--dataset", small_dataset, "--output", "out", "--steps", "100", "--preset", SMALL_PRESET)
    kill_when(process, " 10/100")
    result = invoke("sync", "--output", "out")
    assert "1 dead runs ended KILLED" in result.stdout
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    assert run.info.status == "KILLED"
