"""Importing demonstrations, as a tracked run."""

from __future__ import annotations

from pathlib import Path

from mlflow_project.lineage.provenance import lerobot_dataset, provenance_tags
from mlflow_project.tracked import PROJECT
from mlflow_project.tracking.progress import watch
from mlflow_project.tracking.runs import tracked_run
from rlinf_isaac.data.hdf5.convert import import_demonstrations
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.jobs.dataset import ImportJob


def run(job: ImportJob, output: Path) -> Path:
    """Import as one tracked run; returns the dataset's root."""
    plan, root = job.plan, job.root
    with tracked_run("dataset", output=output, name=f"dataset {root.name}", tags=provenance_tags(PROJECT)) as tracked:
        recorder = tracked.recorder
        recorder.params(
            {
                "files": ", ".join(file.path.name for file in plan.files),
                "cameras": ", ".join(f"{camera.key}={camera.feature}" for camera in plan.chosen.cameras),
                "state": ", ".join(part.key for part in plan.chosen.state),
                "action": plan.chosen.action.key,
                "fps": plan.fps,
                "fps_from": plan.fps_from,
                "mask": plan.request.mask or "none",
                "failed": "keep" if plan.request.keep_failed else "drop",
            },
            prefix="import",
        )
        watch(import_demonstrations(plan, root))
        dataset = LeRobotDataset(root)
        recorder.dataset(lerobot_dataset(root, dataset.digest, "imported"))
        recorder.metrics(
            {
                "import/episodes": dataset.num_episodes,
                "import/frames": dataset.num_frames,
                "import/failed_left_out": len(plan.dropped),
            }
        )
        for file in sorted((root / "meta").glob("*.json*")):
            recorder.artifact(file, f"dataset/meta/{file.name}")
    return root
