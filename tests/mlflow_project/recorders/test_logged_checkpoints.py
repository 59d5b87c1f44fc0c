from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_project.recorders import logged_checkpoints as checkpoints
from mlflow_project.recorders.logged_checkpoints import fine_tuning_words, log_bundle_files, model_name
from mlflow_project.tracking.journal import Journal, read_header, read_operations
from mlflow_project.tracking.operations import LogArtifact
from mlflow_project.tracking.recorder import Recorder
from rlinf_isaac.checkpoint.bundle import read_bundle


@pytest.mark.parametrize(
    ("preset", "pi05", "name"),
    [
        ("tiny", False, "pi0-tiny"),
        ("pi0", False, "pi0"),
        ("pi05", True, "pi05"),
        ("configs/my.yaml", True, "pi05-my"),
        ("pi0_isaaclab", False, "pi0_isaaclab"),
    ],
)
def test_model_name(preset, pi05, name):
    assert model_name(preset, pi05=pi05) == name


@pytest.mark.parametrize(
    ("mode", "small", "logged"), [("auto", 1 << 20, 1), ("auto", 1, 0), ("all", 1, 1), ("none", 1 << 20, 0)]
)
def test_weights_are_logged_when_small_or_wanted(tmp_path, bundles, monkeypatch, mode, small, logged):
    monkeypatch.setattr(checkpoints, "SMALL_BYTES", small)
    journal = Journal.create(tmp_path / "journal", "sft", "uri")
    log_bundle_files(Recorder.start(journal, "run"), read_bundle(bundles[0]), "checkpoint", mode)
    operations = read_operations(journal.path, read_header(journal.path)[1])[0]
    targets = [operation.target for operation, _ in operations if isinstance(operation, LogArtifact)]
    assert sum(target.endswith(".safetensors") for target in targets) == logged
    assert {Path(target).name for target in targets} >= {"bundle.json", "config.json", "norm_stats.json"}


@pytest.mark.parametrize(
    ("trainable", "base", "words"),
    [
        ("all", None, ""),
        ("all", "models/pi0_base", " (from models/pi0_base)"),
        ("lora", "models/pi0_base", " (lora from models/pi0_base)"),
        ("expert", None, " (expert)"),
    ],
)
def test_the_name_of_a_fine_tuning_tells_it_apart(trainable, base, words):
    assert fine_tuning_words(trainable, base) == words
