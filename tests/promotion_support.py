"""Checkpoints with chosen outcomes in a real store: real bundles, real recorder, rows as the test wants them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from support import SHORT_EVALUATION, small_config

from mlflow_project.cli import cli
from mlflow_project.lineage.provenance import evaluation_dataset, lerobot_dataset
from mlflow_project.recorders.sweep_recorder import SweepRecorder
from mlflow_project.tracking.runs import tracked_run
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.write_bundle import write_bundle
from rlinf_isaac.data.lerobot.dataset_digest import dataset_digest
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.ground.events import (
    EpisodeDone,
    EpisodeRow,
    EvaluationFinished,
    EvaluationStarted,
    MismatchAllowed,
    VideoSaved,
)

_numbers = itertools.count(1000)
LENGTH = 16
"""Control steps of every episode: the limit of `SHORT_EVALUATION`."""


def variant(
    source: Path,
    root: Path,
    norm_stats: bytes | None = None,
    parent: Path | None = None,
    assumed: Mapping[str, Any] | None = None,
) -> Path:
    """A checkpoint like `source`, but one that no other test has: its step differs."""
    from safetensors.torch import load_file

    bundle, step = read_bundle(source), next(_numbers)
    written = write_bundle(
        root / str(step),
        state_dict=load_file(source / "model.safetensors"),
        config=bundle.config | ({"assumed": dict(assumed)} if assumed else {}),
        norm_stats=norm_stats or bundle.norm_stats_bytes,
        asset_id=bundle.asset_id,
        step=step,
        lineage={key: value for key, value in bundle.lineage.items() if key not in ("norm_stats", "weights")}
        | ({"parent": digest(parent)} if parent else {}),
    )
    return written.path


@dataclass
class World:
    """One scenario: a store, a registered model's name, and checkpoints of its own.

    Attributes:
        dataset: what the checkpoints were trained on.
        source: a checkpoint to make others of.
        settings: of an evaluation, as the real one would announce them.
        video: an mp4 of an episode of `LENGTH` steps.
    """

    uri: str
    name: str
    dataset: Path
    source: Path
    directory: Path
    settings: dict[str, Any]
    video: Path

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def checkpoint(self, **changes: Any) -> Path:
        return variant(self.source, self.directory / "checkpoints", **changes)

    def record_dataset(self) -> None:
        """Let the store know where the dataset lies."""
        with tracked_run("demos", output=self.directory / "out") as run:
            run.recorder.dataset(lerobot_dataset(self.dataset, dataset_digest(self.dataset)))

    def evaluated(
        self,
        *outcomes: str,
        first_seed: int = 5000,
        mismatch: bool = False,
        paths: list[Path] | None = None,
        planned: int | None = None,
    ) -> tuple[str, list[Path]]:
        """Record one sweep, a checkpoint per string of ``s`` and ``t``, or the first of those `planned`; gives its run
        id and the checkpoints."""
        config = small_config([SHORT_EVALUATION, f"eval.first_seed={first_seed}", f"eval.episodes={len(outcomes[0])}"])
        params = {"env": asdict(config.env), "eval": asdict(config.eval)}
        paths = paths or [self.checkpoint() for _ in outcomes]
        # All of it is in the store before anybody asks, however busy the machine is.
        with (
            pytest.MonkeyPatch.context() as patch,
            tracked_run("eval", output=self.directory / "out", name=f"eval {first_seed}") as run,
        ):
            patch.setattr("mlflow_project.tracking.runs.PATIENCE_S", 300.0)
            dataset = evaluation_dataset(params["env"] | params["eval"])
            planned = planned or len(outcomes)
            record = SweepRecorder(run.recorder, params=params, model_name="pi0-tiny", dataset=dataset, planned=planned)
            for path, ends in zip(paths, outcomes, strict=True):
                self._record(record, path, ends, first_seed, mismatch)
        ids = run.ids()
        assert ids is not None
        return ids[0], paths

    def _record(self, record: SweepRecorder, path: Path, ends: str, first_seed: int, mismatch: bool) -> None:
        bundle = read_bundle(path)
        record(EvaluationStarted(bundle.step, path, bundle.digest, self.settings | {"first_seed": first_seed}))
        if mismatch:
            record(MismatchAllowed(bundle.step, bundle.digest, Problem("prompt-mismatch", "another prompt", "none")))
        for number, end in enumerate(ends):
            video = f"videos/episode_{number:03d}.mp4" if number == 0 else None
            row = EpisodeRow(
                checkpoint_step=bundle.step,
                checkpoint=bundle.digest,
                seed=first_seed + number,
                env_index=number % 2,
                success=end == "s",
                outcome="success" if end == "s" else "timeout",
                length=LENGTH,
                episode_return=float(end == "s"),
                policy_seed=0,
                video=video,
            )
            record(EpisodeDone(row))
            if video:
                record(VideoSaved(bundle.step, row.seed, self.video, LENGTH + 1))
        record(EvaluationFinished(bundle.step, bundle.digest, path))

    def promote(self, *arguments: Any) -> Result:
        words = ["promote", *map(str, arguments), "--name", self.name, "--output", str(self.directory / "out")]
        return CliRunner().invoke(cli, words, env={"MLFLOW_TRACKING_URI": self.uri})

    def nested(self, sweep: str) -> dict[str, str]:
        """Digest of a checkpoint -> its run in a sweep."""
        query = f"tags.mlflow.parentRunId = '{sweep}'"
        runs = self.client.search_runs([self.client.get_run(sweep).info.experiment_id], query)
        return {run.data.tags["checkpoint.sha256"]: run.info.run_id for run in runs}

    def aliases(self) -> dict[str, str]:
        """Alias -> sha256 of the bundle it stands for."""
        found = self.client.search_registered_models(f"name = '{self.name}'")
        aliases = found[0].aliases if found else {}
        version = self.client.get_model_version
        return {alias: version(self.name, str(n)).tags["checkpoint.sha256"] for alias, n in aliases.items()}

    def versions(self) -> int:
        return len(self.client.search_model_versions(f"name = '{self.name}'"))


def digest(path: Path) -> str:
    return read_bundle(path, verify=False).digest
