from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_project.lineage.provenance import DatasetInput
from mlflow_project.recorders.sft_recorder import SftRecorder
from mlflow_project.tracking.runs import tracked_run
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.ground.events import CheckpointSaved, FileSaved

DATASET = DatasetInput("stack2", "d" * 64, "training", "lerobot", {"root": "/data"}, {"episodes": 3})


def record(events, **options):
    with tracked_run("sft", output=Path("out")) as run:
        recorder = SftRecorder(run.recorder, model_name="pi0-tiny", datasets=[DATASET], **options)
        for event in events:
            recorder(event)
    assert run.outcome.refused == ()


def test_a_training_run_is_recorded(store, content, bundles, sft_events):
    record(sft_events)
    found = content(store)
    run = found.runs["sft"]
    assert run["metrics"]["train/loss"][0] == (0, 1_000_000, 1.0)
    assert len(run["metrics"]["train/loss"]) == 20
    assert run["datasets"] == [("stack2", "d" * 32)]
    assert run["tags"]["lineage.dataset.sha256"] == "d" * 64
    assert run["model outputs"] == [("pi0-tiny-step-400", 400), ("pi0-tiny-step-800", 800)]
    assert {name for name, _ in run["artifacts"] if name.startswith("checkpoints/400/")} == {
        f"checkpoints/400/{name}"
        for name in (
            "bundle.json",
            "config.json",
            "model.safetensors",
            "assets/isaaclab_stack_cube/norm_stats.json",
            "isaaclab_stack_cube/norm_stats.json",
        )
    }


def test_a_checkpoint_is_a_logged_model_with_its_lineage(store, content, bundles, sft_events):
    record(sft_events)
    bundle = read_bundle(bundles[0])
    model = content(store).models[0]
    assert (model["name"], model["status"], model["source"]) == ("pi0-tiny-step-400", "READY", "sft")
    assert model["params"]["step"] == "400"
    assert model["tags"]["checkpoint.sha256"] == bundle.digest
    assert model["tags"]["checkpoint.uri"] == str(bundles[0])
    assert model["tags"]["lineage.dataset.sha256"] == "d" * 64
    assert model["tags"]["lineage.norm_stats.sha256"] == bundle.lineage["norm_stats"]
    assert model["tags"]["lineage.weights.sha256"] == bundle.weights_digest


def test_weights_are_left_out_on_request_but_never_the_manifest(store, content, sft_events):
    record(sft_events, upload_weights="none")
    names = [name for name, _ in content(store).runs["sft"]["artifacts"]]
    assert not [name for name in names if name.endswith(".safetensors")]
    assert "checkpoints/800/bundle.json" in names


def test_a_resumed_training_announces_again_and_makes_no_second_model(store, content, sft_events):
    record(sft_events[: len(sft_events) // 2])
    with tracked_run("sft", output=Path("out"), name="resumed") as run:
        recorder = SftRecorder(run.recorder, model_name="pi0-tiny")
        for event in sft_events:
            recorder(event)
    found = content(store)
    assert [model["name"] for model in found.models] == ["pi0-tiny-step-400", "pi0-tiny-step-800"]
    assert found.runs["resumed"]["model outputs"] == [("pi0-tiny-step-400", 400), ("pi0-tiny-step-800", 800)]


def test_raw_weights_are_models_of_their_own(store, content, bundles):
    raw = bundles[0].parent.parent / "checkpoints-raw" / bundles[0].name
    raw.parent.mkdir()
    bundles[0].rename(raw)
    record([CheckpointSaved(400, raw, read_bundle(raw).digest)])
    run = content(store).runs["sft"]
    assert run["model outputs"] == [("pi0-tiny-raw-step-400", 400)]
    assert "checkpoints-raw/400/bundle.json" in {name for name, _ in run["artifacts"]}


@pytest.mark.parametrize(("upload", "expected"), [("none", 1), ("auto", 2)])
def test_files_of_weights_are_uploaded_like_those_of_bundles(store, content, tmp_path, upload, expected):
    files = [tmp_path / name for name in ("adapter_config.json", "adapter_model.safetensors")]
    for file in files:
        file.write_text("{}")
    record([FileSaved(file, f"adapters/400/{file.name}") for file in files], upload_weights=upload)
    names = [name for name, _ in content(store).runs["sft"]["artifacts"]]
    assert len([name for name in names if name.startswith("adapters/400/")]) == expected
