from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from lineage_support import edited, kinds, look_up, swapped, walk
from mlflow import MlflowClient
from support import SMALL_PRESET

from mlflow_project.cli import cli
from rlinf_isaac.checkpoint.bundle import read_bundle

OVERRIDES = "eval.episodes=2,eval.videos=0"


@pytest.fixture(scope="module")
def whole_path(tmp_path_factory, empty_database):
    """Directory and store of one run of `main`, its best checkpoint registered. Tests put back what they break."""
    directory = tmp_path_factory.mktemp("lineage")
    shutil.copy(empty_database, directory / "mlflow.db")
    uri = f"sqlite:///{directory / 'mlflow.db'}"
    environment = {"MLFLOW_TRACKING_URI": uri}
    arguments = ["main", "--rl-iterations", "0", "--output", str(directory / "out")]
    arguments += ["--preset", str(SMALL_PRESET), "--overrides", OVERRIDES]
    result = CliRunner().invoke(cli, arguments, env=environment)
    assert result.exit_code == 0, result.output
    client = MlflowClient(uri)
    model = next(model for model in client.search_logged_models(["1"]) if model.name.endswith("step-6"))
    client.create_registered_model("stack-cube")
    mlflow.set_tracking_uri(uri)  # MLflow looks the model up in the store of the process, not in the client's
    version = client.create_model_version("stack-cube", f"models:/{model.model_id}")
    mlflow.set_tracking_uri(None)
    client.set_registered_model_alias("stack-cube", "candidate", version.version)
    return directory, client, model


@pytest.fixture
def lineage(whole_path):
    """Run the verb against that store; gives the exit code, the chain, and the codes of its breaks."""
    return partial(look_up, whole_path[0])


CHAIN = [
    "model version",
    "model",
    "sft",
    "evaluation",
    "checkpoint",
    "weights",
    "config",
    "norm stats",
    "dataset",
    "parent",
]


@pytest.mark.parametrize("subject", ["models:/stack-cube/1", "models:/stack-cube@candidate"])
def test_a_registered_model_has_the_complete_chain(lineage, whole_path, subject):
    code, chain, breaks = lineage(subject)
    assert (code, breaks) == (0, [])
    assert kinds(chain) == CHAIN
    assert {node["state"] for node in walk(chain)} == {"ok"}
    digests = {node["kind"]: node["digest"] for node in walk(chain)}
    tags = whole_path[2].tags
    for link in ("dataset", "weights", "config"):
        assert digests[link] == tags[f"lineage.{link}.sha256"]
    assert digests["norm stats"] == tags["lineage.norm_stats.sha256"]
    assert digests["checkpoint"] == tags["checkpoint.sha256"]
    assert "computed again: the same" in next(n for n in walk(chain) if n["kind"] == "norm stats")["remarks"]


def test_model_bundle_and_run_lead_into_the_same_chain(lineage, whole_path):
    _, client, model = whole_path
    for subject in (model.model_id, f"models:/{model.model_id}", model.tags["checkpoint.uri"]):
        code, chain, _ = lineage(subject)
        assert code == 0
        assert kinds(chain) == CHAIN[1:]
    (parent,) = client.search_runs([model.experiment_id], "tags.rlinf_isaac.verb = 'main'")
    code, chain, breaks = lineage(parent.info.run_id)
    assert (code, breaks) == (0, [])
    assert [child["kind"] for child in chain["children"]] == ["demos", "norm_stats", "sft", "eval", "promote"]
    assert kinds(chain).count("checkpoint") == 6
    assert kinds(chain).count("weights") == 3


def test_edited_norm_stats_are_named(lineage, whole_path):
    bundle = Path(whole_path[2].tags["checkpoint.uri"])
    for path in bundle.rglob("norm_stats.json"):
        with edited(path, path.read_bytes().replace(b"1", b"2", 1)):
            code, chain, breaks = lineage("models:/stack-cube/1")
            assert code == 2
            assert breaks
            node = next(node for node in walk(chain) if node["state"] == "broken")
            assert node["kind"] == "checkpoint"
            assert str(path) in node["problems"][0]["cause"]


def test_swapped_weights_are_named(lineage, whole_path):
    bundle = Path(whole_path[2].tags["checkpoint.uri"])
    with swapped(bundle / "model.safetensors", bundle.parent / "4" / "model.safetensors"):
        code, chain, _ = lineage("models:/stack-cube/1")
        assert code == 2
        node = next(node for node in walk(chain) if node["state"] == "broken")
        assert str(bundle / "model.safetensors") in node["problems"][0]["cause"]


def test_a_whole_checkpoint_in_the_place_of_another_is_named(lineage, whole_path):
    bundle = Path(whole_path[2].tags["checkpoint.uri"])
    with swapped(bundle, bundle.parent / "4"):
        assert lineage("models:/stack-cube/1")[::2] == (2, ["checkpoint-replaced"])


def test_an_edited_dataset_is_named_and_a_missing_one_is_only_unseen(lineage, whole_path):
    (root,) = (whole_path[0] / "out" / "demos").iterdir()
    tasks = root / "meta" / "tasks.jsonl"
    with edited(tasks, tasks.read_bytes().replace(b"red", b"RED")):
        assert lineage("models:/stack-cube/1")[::2] == (2, ["dataset-changed"])
    root.rename(root.with_name("elsewhere"))
    try:
        code, chain, breaks = lineage("models:/stack-cube/1")
        assert (code, breaks) == (0, [])
        assert [node["kind"] for node in walk(chain) if node["state"] == "unseen"] == ["dataset"]
        code, chain, _ = lineage("models:/stack-cube/1", "--dataset", root.with_name("elsewhere"))
        assert code == 0
        assert {node["state"] for node in walk(chain)} == {"ok"}
    finally:
        root.with_name("elsewhere").rename(root)


def test_norm_stats_of_other_data_are_named(lineage, whole_path, tmp_path):
    """Sealed consistently, yet not the statistics of the dataset it names."""
    from safetensors.torch import load_file

    from rlinf_isaac.checkpoint.write_bundle import write_bundle
    from rlinf_isaac.ground.digest import bytes_digest

    bundle = read_bundle(whole_path[2].tags["checkpoint.uri"])
    stats = bundle.norm_stats_bytes.replace(b"0.", b"1.", 1)
    path = tmp_path / "6"
    write_bundle(
        path,
        state_dict=load_file(bundle.path / "model.safetensors"),
        config=bundle.config,
        norm_stats=stats,
        asset_id=bundle.asset_id,
        step=6,
        lineage={**bundle.lineage, "norm_stats": bytes_digest(stats)},
    )
    assert lineage(path)[::2] == (2, ["norm-stats-not-of-dataset"])


def test_records_that_contradict_each_other_are_named(lineage, whole_path):
    _, client, model = whole_path
    key = "lineage.norm_stats.sha256"
    client.set_tag(model.source_run_id, key, "0" * 64)
    try:
        assert lineage(model.model_id)[::2] == (2, ["link-mismatch"])
    finally:
        client.set_tag(model.source_run_id, key, model.tags[key])


def test_an_evaluation_with_an_allowed_mismatch_does_not_count(lineage, whole_path):
    _, client, model = whole_path
    (run,) = {metric.run_id for metric in client.get_logged_model(model.model_id).metrics}
    client.set_tag(run, "allow_mismatch", "true")
    client.set_tag(run, "mismatch.prompt-mismatch", "...")
    try:
        code, chain, breaks = lineage(model.model_id)
        assert (code, breaks) == (2, ["not-evaluated", "mismatch-allowed"])
        assert "prompt-mismatch" in json.dumps(chain)
    finally:
        client.delete_tag(run, "allow_mismatch")


def test_a_bundle_without_a_store_is_checked_by_its_files(small_checkpoints, small_dataset, tmp_path):
    result = CliRunner().invoke(cli, ["lineage", str(small_checkpoints / "4")])
    assert result.exit_code == 0, result.output
    assert "unseen" in result.stdout
    result = CliRunner().invoke(cli, ["lineage", str(small_checkpoints / "4"), "--dataset", str(small_dataset)])
    assert result.exit_code == 0, result.output
    assert "computed again: the same" in result.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("subject", "code"),
    [
        ("m-" + "0" * 32, "not-in-store"),
        ("0" * 32, "not-in-store"),
        ("models:/nobody/1", "not-in-store"),
        ("models:/stack-cube@nobody", "not-in-store"),
        ("no/such/directory", "unknown-subject"),
    ],
)
def test_what_is_not_there_is_refused(whole_path, subject, code):
    uri = f"sqlite:///{whole_path[0] / 'mlflow.db'}"
    result = CliRunner().invoke(cli, ["lineage", subject], env={"MLFLOW_TRACKING_URI": uri})
    assert result.exit_code == 2
    assert code in result.stderr
