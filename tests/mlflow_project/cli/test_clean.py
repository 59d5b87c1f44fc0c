"""`clean` lists what lies there, frees what nobody needs, and leaves whatever somebody does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import only_error

from mlflow_project.recorders.logged_checkpoints import log_bundle_files, log_model
from mlflow_project.tracking.runs import tracked_run
from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle
from rlinf_isaac.checkpoint.removal import in_use
from rlinf_isaac.ground.atomic import locked

OUT = Path("result/isaaclab_openpi")


@pytest.fixture
def job(store, small_checkpoints) -> Path:
    """The default output with one training, recorded, whose steps are 2, 4 and 6, and what a killed writer left."""
    job = OUT / "sft/tiny-0123abcd"
    shutil.copytree(small_checkpoints, job / "checkpoints")
    with tracked_run("sft", output=OUT) as run:
        for path in find_bundles(job / "checkpoints").values():
            log_model(run.recorder, read_bundle(path), "pi0-tiny", "output")
            log_bundle_files(run.recorder, read_bundle(path), f"checkpoints/{path.name}", "none")
        assert run.uploader.delivered(120)
    dead = job / "checkpoints" / ".8.tmp-4194305-0a0b"  # no pid is that large
    dead.mkdir()
    (dead / "model.safetensors").write_bytes(b"x" * 100)
    rows = [{"checkpoint": read_bundle(job / "checkpoints/2").digest, "success": True}]
    evaluated = OUT / "eval/0123/2-abcd/episodes.jsonl"
    evaluated.parent.mkdir(parents=True)
    evaluated.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return job


@pytest.fixture
def clean(invoke):
    def run(*words: str) -> dict[str, str]:
        """Path of each item, by its last two parts -> whether it stays, and why."""
        result = invoke("clean", *words, "--json")
        assert result.exit_code == 0, result.output
        items = json.loads(result.stdout)["items"]
        return {
            "/".join(Path(item["path"]).parts[-2:]): f"{'stays' if item['stays'] else 'goes'}: {item['why']}"
            for item in items
        }

    return run


def left(job: Path) -> list[int]:
    return list(find_bundles(job / "checkpoints"))


def test_what_somebody_needs_stays_and_the_rest_goes(job, clean, invoke, store):
    before = sorted(path for path in OUT.rglob("*"))
    listed = clean("--keep", "last:1")
    leftover = "goes: a process that was killed has left it"
    assert listed == {
        "checkpoints/2": "goes: no --keep holds it",
        "checkpoints/4": "goes: no --keep holds it",
        "checkpoints/6": "stays: it is the newest of its training",
        "0123/2-abcd": "stays: episodes are what a success rate rests on",
        "checkpoints/.8.tmp-4194305-0a0b": leftover,
    }
    assert clean("--keep", "best:1")["checkpoints/2"] == "stays: --keep best:1"
    assert clean()["checkpoints/4"] == "stays: --keep all"
    clean("--keep", "last:1", "--dry-run", "--yes")
    assert sorted(path for path in OUT.rglob("*")) == before, "nothing was asked to go"

    # Registered by a person, with no tag and no alias, and the base of another run.
    client = MlflowClient(store)
    (experiment,) = (each for each in client.search_experiments() if each.name == "rlinf-isaac")
    models = {
        model.tags["checkpoint.sha256"]: model for model in client.search_logged_models([experiment.experiment_id])
    }
    digest = {step: read_bundle(path).digest for step, path in find_bundles(job / "checkpoints").items()}
    client.create_registered_model("mine")
    model = models[digest[2]].model_id
    version = client.create_model_version("mine", f"models:/{model}", model_id=model)
    other = client.create_run(experiment.experiment_id, run_name="rl", tags={"lineage.parent.sha256": digest[4]})
    assert clean("--keep", "last:1", "--yes") == listed | {
        "checkpoints/2": "stays: registered as mine version 1",
        "checkpoints/4": "stays: the run rl was trained from it",
    }
    assert left(job) == [2, 4, 6]
    assert not (job / "checkpoints/.8.tmp-4194305-0a0b").exists()
    client.set_registered_model_alias("mine", "champion", version.version)
    assert clean("--keep", "last:1")["checkpoints/2"] == "stays: registered as mine version 1 @champion"

    # Nobody needs them any more, but a process works with one, or in the directory.
    client.delete_registered_model("mine")
    client.delete_run(other.info.run_id)
    with in_use([job / "checkpoints/2"]):
        assert clean("--keep", "last:1")["checkpoints/2"] == "stays: a process works with it"
    with locked(job):
        assert (
            clean("--keep", "last:1", "--yes")["checkpoints/4"]
            == "stays: a process works in the directory of its training"
        )
    assert left(job) == [2, 4, 6]

    result = invoke("clean", OUT, "--keep", "last:1", "--yes")
    assert result.exit_code == 0, result.output
    assert "Removed 2 of 4" in result.stdout
    assert left(job) == [6]
    removed = [json.loads(line) for line in (job / "removed.jsonl").read_text().splitlines()]
    assert {entry["step"]: entry["digest"] for entry in removed} == {2: digest[2], 4: digest[4]}
    read_bundle(job / "checkpoints/6")


def test_without_the_store_nothing_goes(job, invoke, tmp_path, monkeypatch):
    """Neither while the one of this process is silent, nor while the one of a journal is."""
    for elsewhere in (False, True):
        os.rename("mlflow.db", "away.db")
        if elsewhere:
            shutil.copy("away.db", "other.db")
            monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
        only_error(invoke("clean", "--keep", "last:1", "--yes"), "clean-without-store")
        os.rename("away.db", "mlflow.db")
    assert left(job) == [2, 4, 6]
    os.remove("mlflow.db")
    result = invoke("clean", "--keep", "last:1", "--yes", "--without-store")
    assert result.exit_code == 0, result.output
    assert "warning clean-without-store" in result.stderr
    assert left(job) == [6]


def test_what_is_not_uploaded_yet_stays(job, clean):
    state = next((OUT / "journal").glob("*.state.json"))
    state.unlink()  # as if the store had been down all the time
    assert clean("--keep", "last:1")["checkpoints/4"] == "stays: it is not uploaded yet"


def test_wrong_options_are_findings(store, invoke):
    OUT.mkdir(parents=True)
    only_error(invoke("clean", "--keep", "latest"), "bad-value")
    only_error(invoke("clean", "nowhere"), "missing-results")
