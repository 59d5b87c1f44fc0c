"""A journal as a verb with a nested run writes it, with metrics, params, pictures and a video."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from mlflow_project.tracking.journal import Journal, read_header, read_operations
from mlflow_project.tracking.operations import LogMetrics, StartRun
from mlflow_project.tracking.recorder import Recorder
from mlflow_project.vocabulary import NOTE_TAG, VERB_TAG


def write(output: Path) -> Journal:
    """A whole journal, still open, of a run that has ended."""
    journal = Journal.create(output / "journal", "eval", "sqlite:///nowhere.db")
    outer = Recorder.start(journal, "eval tiny", tags={VERB_TAG: "eval", NOTE_TAG: "**one** is best"})
    outer.params({"lr": 1e-3, "model": {"width": 32}})
    for step in range(0, 60, 20):
        outer.metrics({"train/loss": 1 / (step + 1), "train/lr": 1e-3}, step, time_s=1_700_000_000.25 + step)
    for name in ("step-1", "step-2", "step-1"):  # a name that comes twice
        nested = outer.start_run(name)
        nested.params({"step": name})
        nested.metrics({"eval/success_once": len(name) / 7, "not_finite": float("nan")}, 3)
        nested.animation("rollout", 5, _animate)
        picture = output / f"{name}.png"
        Image.new("RGB", (6, 4), "red").save(picture)
        nested.artifact(picture, "plots/curve.png")
        nested.end("FINISHED")
    outer.metrics({"train/loss": 0.125}, 60)
    outer.end("FINISHED")
    return journal


def points(journal: Path) -> dict[str, list[tuple[str, int, float, float]]]:
    """Run uuid -> (name, step, seconds, value) of every metric in the journal, in its order."""
    found: dict[str, list[tuple[str, int, float, float]]] = {}
    for operation in operations_of(journal):
        if isinstance(operation, StartRun):
            found[operation.run] = []
        elif isinstance(operation, LogMetrics):
            rows = ((name, operation.step, operation.time_ms / 1000, value) for name, value in operation.values.items())
            found[operation.run] += rows
    return found


def operations_of(journal: Path) -> Iterator[object]:
    return (operation for operation, _ in read_operations(journal, read_header(journal)[1])[0])


def _animate(still: Path, animation: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "green", "blue")]
    frames[0].save(still, "PNG")
    frames[0].save(animation, "WEBP", save_all=True, append_images=frames[1:], duration=100, loop=0, lossless=True)
