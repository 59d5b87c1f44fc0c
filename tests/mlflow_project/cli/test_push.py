"""`push` to a hub of this machine that speaks the Hub's API to its real client, and what was pushed read back."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from corpus.hub import READ_TOKEN, TOKEN, Hub, serve
from huggingface_hub import ModelCard
from promotion_support import World, digest
from support import only_error

from mlflow_project.comparison.evaluations import read_evaluations
from mlflow_project.publishing.card import model_card
from mlflow_project.publishing.evidence import find_evidence
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.stats.rates import wilson_interval

REPO = "lab/stack-cube"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("HF_")]:
        monkeypatch.delenv(name)
    taken = {"lab/other": {"main": {"model.safetensors": b"of somebody else"}}}
    with serve(Hub(taken)) as served:
        for name, value in served.environment(tmp_path / "hf").items():
            monkeypatch.setenv(name, value)
        yield served


@pytest.fixture
def push(start, hub):
    """Push in a process of its own, because the client reads its variables when it is imported; no output of it may
    have a token."""

    def run(*words: object, code: int = 0) -> tuple[str, str]:
        process = start("push", *words)
        out, err = process.communicate()
        assert process.returncode == code, out + err
        assert TOKEN not in out + err
        assert READ_TOKEN not in out + err
        return out, err

    return run


def said(text: str) -> dict:
    return ModelCard(text).data.to_dict()


def test_a_checkpoint_with_its_evidence(push, start, hub, world: World, tmp_path):
    """What was pushed is the best checkpoint of the run, byte for byte, with a card of its numbers; another push
    replaces it whole."""
    run, paths = world.evaluated("s" * 6 + "t" * 14, "s" * 15 + "t" * 5)
    assert len(read_evaluations(world.client, [run])) == 2, "the store has not got all records in time"
    out, _ = push(run, f"hf://{REPO}", "--private", "--license", "apache-2.0")
    commit = hub.commit(REPO, "main")
    assert f"pushed       hf://{REPO}@{commit}" in out
    assert hub.private == {REPO}
    bundle, files = read_bundle(paths[1]), hub.models[REPO]["main"]
    assert files.keys() == {*bundle.manifest.files, "bundle.json", "README.md", ".gitattributes"}
    assert all((bundle.path / name).read_bytes() == files[name] for name in (*bundle.manifest.files, "bundle.json"))

    card = files["README.md"].decode()
    read = ModelCard(card, ignore_metadata_errors=False).data
    (result,) = read.eval_results
    low, high = wilson_interval(15, 20)
    assert (result.metric_type, result.metric_value, result.task_type) == ("success_rate", 0.75, "robotics")
    assert result.metric_args == {"wilson_95_low": round(low, 6), "wilson_95_high": round(high, 6)}
    assert result.dataset_args == {"episodes": 20, "seeds": "5000-5019"}
    assert (read.license, read.pipeline_tag, read.library_name) == ("apache-2.0", "robotics", "rlinf-isaac")
    assert read.base_model is None, "it started from random weights"
    interval = f"{100 * low:.1f} to {100 * high:.1f} %"
    (evaluation,) = (each for each in read_evaluations(world.client, [run]) if each.checkpoint == bundle.digest)
    for part in (
        f"**75.0 %** of 20 episodes in simulation; 95 % Wilson interval {interval}.",
        "| seeds | 5000-5019 |",
        "Clear winner",
        bundle.digest,
        str(bundle.lineage["dataset"]),
        f"rlinf-isaac serve hf://{REPO}",
        f"rlinf-isaac eval --ckpt-root hf://{REPO} --episodes 20 --first-seed 5000",
        str(evaluation.settings["environment"]["backend"]),
    ):
        assert part in card, part
    assert TOKEN not in Path(tmp_path / "mlflow.db").read_bytes().decode(errors="replace")

    (pushed,) = world.client.search_runs(["1"], "tags.`rlinf_isaac.verb` = 'push'")
    assert pushed.data.tags["checkpoint.hub"] == f"hf://{REPO}@{commit}"
    assert pushed.data.tags["checkpoint.sha256"] == bundle.digest

    # The same again changes nothing; another checkpoint replaces it, without a file of the first.
    push(paths[1], f"hf://{REPO}", "--license", "apache-2.0")
    assert hub.commit(REPO, "main") == commit
    hub.models[REPO]["main"]["model-00002-of-00002.safetensors"] = b"a shard of an earlier push"
    push(paths[0], REPO)
    assert hub.models[REPO]["main"].keys() == files.keys()
    evaluated = start(
        "eval", "--ckpt-root", f"hf://{REPO}", "--episodes", 2, "--overrides", "env.max_episode_steps=16", "--videos", 0
    )
    out, err = evaluated.communicate()
    assert evaluated.returncode == 0, err
    rows = [json.loads(line) for line in next(Path("result").rglob("episodes.jsonl")).read_text().splitlines()]
    assert {row["checkpoint"] for row in rows} == {digest(paths[0])}
    query = f"tags.`checkpoint.hub` = 'hf://{REPO}@{hub.commit(REPO, 'main')}' and metrics.`eval/episodes` = 2"
    assert len(world.client.search_runs(["1"], query)) == 1


def test_a_dry_run_contacts_nobody(push, hub, world: World):
    run, _ = world.evaluated("s" * 8)
    out, _ = push(run, f"hf://{REPO}", "--dry-run", "--revision", "step-6")
    assert hub.asked == []
    assert f"rlinf-isaac serve hf://{REPO}@step-6" in out
    assert "would upload  model.safetensors" in out
    card = out[out.index("---") : out.index("would upload  README.md")]
    assert "license" not in said(card)
    assert "- the licence" in card
    push(run, f"hf://{REPO}", "--revision", "step-6")
    assert "bundle.json" in hub.models[REPO]["step-6"]
    assert "bundle.json" not in hub.models[REPO]["main"]


def test_what_keeps_a_push_from_starting(push, hub, world: World, monkeypatch):
    """Everything at once where it can be known, and nothing is uploaded."""
    run, _ = world.evaluated("s" * 4)
    never = world.checkpoint()
    _, err = push(never, "hf://lab", "--license", "Apache 2", code=2)
    for code in ("no-evidence", "hub-uri", "bad-licence"):
        assert code in err
    assert f"rlinf-isaac eval --ckpt-root {never.parent} --ckpt-steps {never.name}" in " ".join(err.split())

    def refused(code: str, *words: object) -> str:
        _, err = push(*words, code=2)
        assert re.findall(r"error (\S+)", err) == [code]
        return err

    assert "lab/other has 1 files on main" in refused("hub-occupied", run, "hf://lab/other")
    assert "push to hf://ada/NAME" in refused("hub-no-rights", run, "hf://elsewhere/x")
    refused("hub-no-rights", run, "hf://library/x")
    refused("no-optimiser-state", run, f"hf://{REPO}", "--optimiser-state")
    refused("unknown-subject", "champion", f"hf://{REPO}")
    monkeypatch.setenv("HF_TOKEN", READ_TOKEN)
    assert "may only read" in refused("hub-read-only", run, f"hf://{REPO}")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused("no-hub-token", run, f"hf://{REPO}")
    monkeypatch.delenv("HF_TOKEN")
    assert "hf auth login" in refused("no-hub-token", run, f"hf://{REPO}")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused("hub-offline", run, f"hf://{REPO}")
    assert hub.models.keys() == {"lab/other"}
    assert hub.blobs == {}


def test_the_card_says_what_nobody_knows(world: World):
    """Of a checkpoint that was never evaluated, or only in spite of a mismatch, it has no rate."""
    _, (path,) = world.evaluated("s" * 4, mismatch=True)
    evidence = find_evidence(str(path))
    card = model_card(evidence, REPO)
    assert evidence.evaluation is None
    assert evidence.mismatched == 1
    assert "model-index" not in said(card)
    assert "Success rate: not known." in card
    assert "- the success rate" in card


def test_no_store_and_no_run(invoke, tmp_path):
    (tmp_path / "mlflow.db").unlink()
    only_error(invoke("push", "0" * 32, f"hf://{REPO}", "--dry-run"), "not-in-store")
