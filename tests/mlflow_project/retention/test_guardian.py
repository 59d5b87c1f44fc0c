"""What a training is told before it removes a checkpoint."""

from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient

from mlflow_project.recorders.logged_checkpoints import log_bundle_files, log_model
from mlflow_project.retention import guardian as guardian_module
from mlflow_project.retention.guardian import StoreGuardian
from mlflow_project.tracking.runs import TrackedRun, tracked_run
from mlflow_project.tracking.state import State
from mlflow_project.vocabulary import MODEL_TAG
from rlinf_isaac.checkpoint.bundle import read_bundle


def uploaded(run: TrackedRun) -> None:
    """Wait until the uploader has everything, and has noted that on disk."""
    assert run.uploader.delivered(120)
    path = run.recorder.journal.path
    while State.load(path).offset < path.stat().st_size:
        assert run.uploader.delivered()


def test_what_is_not_recorded_not_uploaded_or_in_use_has_to_stay(
    store, small_checkpoints, dead_uri, caplog, monkeypatch
):
    monkeypatch.setattr(guardian_module, "LIMIT_S", 120.0)  # however busy the machine is
    bundles = [read_bundle(small_checkpoints / str(step)) for step in (2, 4, 6)]
    first, second, third = (bundle.digest for bundle in bundles)
    with tracked_run("sft", output=Path("out")) as run:
        guardian = StoreGuardian.of(run)
        assert set((guardian(bundles) or {}).values()) == {"it is not recorded yet"}
        for bundle in bundles:
            log_model(run.recorder, bundle, "pi0-tiny", "output")
            log_bundle_files(run.recorder, bundle, f"checkpoints/{bundle.step}", "none")
        uploaded(run)
        assert guardian(bundles) == {}
        evaluation = run.recorder.start_run("step-4", {MODEL_TAG: second})
        client = MlflowClient(store)
        (experiment,) = (each for each in client.search_experiments() if each.name == "rlinf-isaac")
        client.create_run(experiment.experiment_id, run_name="base", tags={"lineage.base.sha256": third})
        uploaded(run)
        assert guardian(bundles) == {
            second: "the run step-4 works with it",
            third: "the run base was trained from it",
        }
        evaluation.end("FINISHED")
        uploaded(run)
        assert guardian(bundles).keys() == {third}

        silent = StoreGuardian(dead_uri, guardian.journal)
        assert silent(bundles) is None
        assert "no checkpoint is removed now" in caplog.text
        guardian.journal.with_name(f"{guardian.journal.name}.state.json").unlink()  # as if nothing were uploaded
        assert set((silent(bundles) or {}).values()) == {"it is not uploaded yet"}
    assert first not in (guardian(bundles) or {first})
