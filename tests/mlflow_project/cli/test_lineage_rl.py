"""`lineage` of what `rl` made: through the checkpoint that it started from, down to the dataset."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner
from lineage_support import edited, kinds, look_up, swapped, walk
from mlflow import MlflowClient
from support import SMALL_PRESET, SMALL_RL

from mlflow_project.cli import cli
from rlinf_isaac.checkpoint.bundle import read_bundle


@pytest.fixture(scope="module")
def improved(tmp_path_factory, empty_database, small_dataset):
    """Directory of a store in which sft, then rl from one of its checkpoints were recorded; the two bundles."""
    directory = tmp_path_factory.mktemp("improved")
    shutil.copy(empty_database, directory / "mlflow.db")
    environment = {"MLFLOW_TRACKING_URI": f"sqlite:///{directory / 'mlflow.db'}"}

    def run(*words):
        words = [*words, "--output", directory / "out"]
        result = CliRunner().invoke(cli, list(map(str, words)), env=environment)
        assert result.exit_code == 0, result.output + repr(result.exception)

    run("sft", "--dataset", small_dataset, "--preset", SMALL_PRESET)
    (root,) = directory.glob("out/sft/*/checkpoints")
    overrides = ",".join([*SMALL_RL, "eval.episodes=2", "eval.videos=0"])
    run("rl", "--ckpt-root", root, "--ckpt-steps", 4, "--overrides", overrides)
    (result,) = directory.glob("out/rl/*/checkpoints/1")
    return directory, root / "4", result


IMPROVED_CHAIN = [
    *("model", "rl", "evaluation", "checkpoint", "weights", "config", "norm stats", "dataset"),
    *("parent", "sft", "weights", "config", "norm stats", "dataset", "parent"),
]


def test_a_checkpoint_of_rl_leads_to_the_one_it_started_from(improved, small_dataset):
    directory, start, result = improved
    code, chain, breaks = look_up(directory, result)
    assert (code, breaks) == (0, [])
    assert kinds(chain) == IMPROVED_CHAIN
    assert {node["state"] for node in walk(chain)} == {"ok"}
    parent = next(node for node in walk(chain) if node["kind"] == "parent")
    assert (parent["where"], parent["digest"]) == (str(start), read_bundle(start).digest)
    assert read_bundle(result).norm_stats_bytes == read_bundle(start).norm_stats_bytes
    remarks = [node["remarks"] for node in walk(chain) if node["kind"] == "norm stats"]
    assert remarks == [["computed again: the same"]] * 2


def test_the_run_of_rl_holds_the_same_chain(improved):
    directory, start, result = improved
    client = MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    runs = client.search_runs(["1"], "tags.rlinf_isaac.verb = 'rl'")
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    code, chain, breaks = look_up(directory, parent.info.run_id)
    assert (code, breaks) == (0, [])
    (nested,) = chain["children"]
    assert nested["kind"] == "rl"
    assert any("before" in remark for remark in nested["remarks"])
    assert [child["kind"] for child in nested["children"]].count("evaluation") == 2
    places = {node["where"] for node in walk(chain) if node["kind"] in ("checkpoint", "parent")}
    assert {str(start), str(result)} <= places


def test_a_swapped_start_checkpoint_is_named(improved):
    directory, start, result = improved
    with swapped(start, start.with_name("2")):
        code, chain, breaks = look_up(directory, result)
    assert (code, breaks) == (2, ["checkpoint-replaced"])
    assert [node["kind"] for node in walk(chain) if node["state"] == "broken"] == ["parent"]


def test_an_edited_start_checkpoint_is_named(improved):
    directory, start, result = improved
    weights = start / "model.safetensors"
    data = weights.read_bytes()
    with edited(weights, data[:-1] + bytes([data[-1] ^ 1])):
        code, chain, breaks = look_up(directory, result)
    assert (code, breaks) == (2, ["bundle-file-changed"])
    node = next(node for node in walk(chain) if node["state"] == "broken")
    assert node["kind"] == "parent"
    assert str(weights) in node["problems"][0]["cause"]


def test_a_start_checkpoint_that_is_gone_is_only_unseen(improved, tmp_path, monkeypatch):
    directory, start, result = improved
    start.rename(start.with_name("aside"))
    try:
        code, chain, breaks = look_up(directory, result)
    finally:
        start.with_name("aside").rename(start)
    assert (code, breaks) == (0, [])
    assert [node["kind"] for node in walk(chain) if node["state"] == "unseen"] == ["parent"]
    without_store = look_up(tmp_path, result)[1]
    parent = next(node for node in walk(without_store) if node["kind"] == "parent")
    assert (parent["state"], parent["digest"]) == ("unseen", read_bundle(start).digest)
