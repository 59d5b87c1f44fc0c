"""A training of another trainer, from its begin to its end, and what becomes of it when it is killed or resumed."""

from __future__ import annotations

import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from mlflow_project.callbacks.ending import Ending, ending_of
from mlflow_project.callbacks.forward import follow
from mlflow_project.callbacks.job import Job
from mlflow_project.callbacks.options import read_options
from mlflow_project.callbacks.plain import numbers, plain
from mlflow_project.callbacks.training import Training
from rlinf_isaac.ground.errors import InvalidJob

PROJECT = Path(__file__).parents[3]


def only_run(store: str, query: str):
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    (run,) = client.search_runs([experiment], query)
    return client, run


@pytest.fixture
def begin(store, tmp_path, monkeypatch):
    """Begin a training whose journal nobody uploads while it lives."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    options = read_options()

    def begun(resumed: bool = False, **config: object) -> Training:
        job = Job("openpi", tmp_path / "out", "toy", config, PROJECT, resumed, total=4)
        return Training(job, type(options)(options.labels, None))

    return begun


def test_killed_in_an_interpreter_without_packages_it_is_recorded_by_another(store, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    command = [
        sys.executable,
        "-S",
        str(Path(__file__).with_name("bare_trainer.py")),
        str(PROJECT),
        str(tmp_path / "out"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        ready = process.stdout.readline()
        process.kill()
        said = process.stderr.read()
    assert ready == "ready\n", said
    assert "rlinf-isaac sync --output" in said
    (journal,) = (tmp_path / "out/journal").glob("*.jsonl")
    assert "not-to-be-seen" not in journal.read_text()

    assert follow(journal)
    client, run = only_run(store, "tags.`mlflow.runName` = 'bare metal'")
    assert run.info.status == "KILLED"
    assert {run.data.tags[key] for key in ("rlinf_isaac.verb", "engine")} == {"lerobot-train", "lerobot"}
    assert run.data.tags["not_known"] == "commit"
    assert run.data.params["lerobot/wandb/api_key"] == "***"
    assert run.data.params["lerobot/tokenizer_name"] == "paligemma"
    loss = client.get_metric_history(run.info.run_id, "train/loss")
    assert {point.step: point.value for point in loss} == {step: 1 / step for step in range(1, 6)}
    _, checkpoint = only_run(store, f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert checkpoint.info.status == "FINISHED"
    assert checkpoint.data.metrics == {"train/loss": 0.2}
    assert checkpoint.data.tags["lineage.weights.sha256"] == sha256(b"weights").hexdigest()
    assert checkpoint.data.tags["not_known"] == "norm stats"


def test_resumed_it_is_the_same_run(begin, store):
    first = begin(steps=4, lr=0.1)
    first.metrics({"train/loss": 1.0}, 1)
    first.end(ending_of(ValueError("no memory")))
    journal = first.recorder.journal.path
    assert follow(journal)
    _, run = only_run(store, "")
    assert run.info.status == "FAILED"
    assert run.data.tags["failure.reason"] == "ValueError: no memory"
    assert run.data.tags["mlflow.source.git.commit"]

    again = begin(resumed=True, steps=8, lr=0.1, seed=3)
    assert again.recorder.journal.path == journal
    again.metrics({"train/loss": 0.5}, 5)
    again.end(Ending("FINISHED"))
    again.metrics({"train/loss": 0.1}, 6)  # after the end: of nobody
    assert follow(journal)
    client, run = only_run(store, "")
    assert run.info.status == "FINISHED"
    assert {key: run.data.params[f"openpi/{key}"] for key in ("steps", "lr", "seed")} == {
        "steps": "4",
        "lr": "0.1",
        "seed": "3",
    }
    assert run.data.tags["resumed.1.openpi/steps"] == "8"
    assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [1, 5]


def test_a_new_training_in_the_directory_of_another_is_another_run(begin):
    runs = {begin(resumed=resumed).recorder.run for resumed in (True, False)}  # the first is alive: nothing to resume
    assert len(runs) == 2


def test_all_that_is_wrong_is_said_at_once(monkeypatch):
    with pytest.raises(InvalidJob) as refused:
        read_options(name="", python="/no/such/python", hash_limit_gb=-1)
    assert {problem.code for problem in refused.value.problems} == {
        "bad-run-name",
        "no-callback-python",
        "bad-hash-limit",
    }


SECRET = "hf_s3cr3t0fMine"
leaves = st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.just(Path("a")) | st.binary(max_size=3)
values = st.recursive(leaves, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each))


@given(values, st.sampled_from(["api_key", "hub_token", "PASSWORD", "wandb_secret"]))
def test_any_config_becomes_json_and_hides_its_secrets(value, key):
    import json

    text = json.dumps(plain({"inner": [value, {key: SECRET}], "url": f"https://me:{SECRET}@host/x"}))
    assert SECRET not in text


def test_only_single_numbers_are_metrics():
    import numpy as np

    found = numbers(
        {"a": 1, "b": np.float32(2), "c": np.ones(3), "d": "text", "e": np.array([4.0]), "f": None}, "train/"
    )
    assert found == {"train/a": 1.0, "train/b": 2.0, "train/e": 4.0}
