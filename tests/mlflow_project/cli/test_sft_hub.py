"""Fine-tuning on a dataset of the hub: downloaded where it is named, with its commit recorded; never a part of it."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

import pytest
from corpus.hub import TOKEN, Hub, serve
from mlflow import MlflowClient
from support import SMALL_PRESET

from rlinf_isaac.data.lerobot.dataset_digest import dataset_digest
from rlinf_isaac.ground.hub import uri_of

NAME = "lab/stack"
SFT = ("--preset", SMALL_PRESET, "--steps", 2, "--save-interval", 2, "--output", "out")


@pytest.fixture
def hub(monkeypatch, tmp_path, small_dataset):
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    files = {
        file.relative_to(small_dataset).as_posix(): file.read_bytes()
        for file in small_dataset.rglob("*")
        if file.is_file()
    }
    datasets = {NAME: {"main": {**files, "README.md": b"# Stacking"}}, "lab/words": {"main": {"README.md": b""}}}
    with serve(Hub({}, datasets=datasets, gated={"lab/secret"})) as served:
        for name, value in served.environment(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        yield served


def test_a_dataset_of_the_hub(start, hub, store, small_dataset, monkeypatch):
    """Killed in the middle of the download, nothing offline passes for the whole; then downloaded, trained on, and
    found again offline."""
    hub.stalls = next(name for name in hub.datasets[NAME]["main"] if name.endswith(".parquet"))
    killed = start("sft", "--dataset", f"hf://{NAME}", *SFT)
    assert hub.stalled.wait(600), "it asks for the file"
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    hub.stalls = ""
    hub.release.set()

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused = start("sft", "--dataset", f"hf://{NAME}", *SFT)
    _, err = refused.communicate()
    assert refused.returncode == 2
    assert re.findall(r"error (\S+)", err) == ["hub-unreachable"]
    assert f"hf download --repo-type dataset {NAME}" in " ".join(err.split())

    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    trained = start("sft", "--dataset", f"hf://datasets/{NAME}", *SFT)
    out, err = trained.communicate()
    assert trained.returncode == 0, err
    assert TOKEN not in out + err
    commit = hub.commit(NAME, "main", "datasets")
    (run,) = MlflowClient(store).search_runs(["1"], "tags.`rlinf_isaac.verb` = 'sft'")
    assert run.data.tags["dataset.hub"] == f"hf://{NAME}@{commit}"
    assert run.data.tags["lineage.dataset.sha256"] == dataset_digest(small_dataset)
    (used,) = run.inputs.dataset_inputs
    assert used.dataset.name == NAME
    source = json.loads(used.dataset.source)
    assert source["hub"] == f"hf://{NAME}@{commit}"
    assert uri_of(Path(source["root"])) == source["hub"]
    assert not (Path(source["root"]) / "README.md").exists()

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.asked.clear()
    again = start("doctor", "sft", "--dataset", f"hf://{NAME}", *SFT)
    out, err = again.communicate()
    assert again.returncode == 0, out + err
    assert f"HF_HUB_OFFLINE is set, so commit {commit[:12]} in the cache is used" in " ".join(err.split())
    assert hub.asked == []


@pytest.mark.parametrize(
    ("dataset", "code"),
    [
        ("hf://lab/words", "hub-no-dataset"),
        (f"hf://{NAME}@v9", "hub-no-revision"),
    ],
)
def test_what_is_not_there(start, hub, dataset, code):
    process = start("doctor", "--dataset", dataset, "--json")
    out, _ = process.communicate()
    assert process.returncode == 2
    assert [problem["code"] for problem in json.loads(out)["problems"]] == [code]
