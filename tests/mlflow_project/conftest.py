"""A real sqlite store per test, a real ``mlflow server`` per session, and event streams over real bundles."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from support import make_evaluation

from mlflow_project.tracking.replica import RUN_TAG
from mlflow_project.tracking.unique import CLAIM, COUNTS
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.write_bundle import write_bundle
from rlinf_isaac.ground.events import (
    CheckpointSaved,
    EpisodeDone,
    EpisodeRow,
    EvaluationFinished,
    EvaluationStarted,
    Event,
    Metrics,
    Progress,
    VideoSaved,
)

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"

MLFLOW_VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")


@pytest.fixture(autouse=True)
def own_directory(tmp_path, monkeypatch):
    """Every test works in an empty directory, without the caller's MLflow settings, and leaves none behind."""
    for name in MLFLOW_VARIABLES:
        monkeypatch.setenv(name, "")  # so that whatever a test leaves is undone
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    yield
    if "mlflow" in sys.modules:
        sys.modules["mlflow"].set_tracking_uri(None)
        sys.modules["mlflow.tracking.fluent"]._active_experiment_id = None  # which nothing public undoes


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory) -> Iterator[Path]:
    """A database with MLflow's tables; making them takes seconds, copying does not. What MLflow asks its migrations
    whenever it opens one, which is the newest, is asked once."""
    from mlflow import MlflowClient
    from mlflow.store.db import utils

    from mlflow_project.tracking.mlflow_environment import prepare_environment

    prepare_environment()
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_get_latest_schema_revision", cache(utils._get_latest_schema_revision))
        MlflowClient(f"sqlite:///{path}").search_experiments()
        yield path


@pytest.fixture
def store(empty_database, tmp_path) -> str:
    """Tracking URI of a fresh sqlite store, ``mlflow.db`` in the working directory (the default of all verbs)."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@dataclass
class Server:
    """A real ``mlflow server`` that can be killed and started again with the same port and data."""

    directory: Path
    port: int
    process: subprocess.Popen | None = None
    backend: str | None = None
    """URI of its database; a sqlite file in `directory` where there is none."""

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        command += ["--backend-store-uri", self.backend or f"sqlite:///{self.directory / 'mlflow.db'}"]
        command += ["--artifacts-destination", str(self.directory / "artifacts")]
        with open(self.directory / "log", "ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        while not self._healthy():
            try:
                self.process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            raise RuntimeError((self.directory / "log").read_text())

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory, empty_database) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, directory / "mlflow.db")
    server = Server(directory, free_port())
    yield server
    server.kill()


@pytest.fixture
def make_server(tmp_path, empty_database) -> Iterator[Callable[..., Server]]:
    """Start servers that no other test has, on the database with a URI or on an empty one of sqlite."""
    servers: list[Server] = []

    def make(backend: str | None = None) -> Server:
        directory = tmp_path / f"server{len(servers)}"
        directory.mkdir()
        shutil.copy(empty_database, directory / "mlflow.db")
        servers.append(Server(directory, free_port(), backend=backend))
        servers[-1].start()
        return servers[-1]

    yield make
    for server in servers:
        server.kill()


@pytest.fixture
def own_server(make_server) -> Server:
    """A server that no other test has, running."""
    return make_server()


@pytest.fixture
def server(shared_server) -> Server:
    """The session's server, running."""
    if shared_server.process is None:
        shared_server.start()
    return shared_server


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def dead_uri() -> Iterator[str]:
    """Where no server listens, nor will: the port stays taken while the test runs."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def bundles(tmp_path) -> list[Path]:
    """Two real checkpoint bundles, steps 400 and 800, with different weights."""
    import torch

    stats = b'{"norm_stats": {"state": {"mean": [0.0], "std": [1.0]}, "actions": {"mean": [0.0], "std": [1.0]}}}'
    paths = []
    for step in (400, 800):
        bundle = write_bundle(
            tmp_path / "sft" / "checkpoints" / str(step),
            state_dict={"weight": torch.full((4, 4), float(step))},
            config={"preset": "tiny"},
            norm_stats=stats,
            asset_id="isaaclab_stack_cube",
            step=step,
            lineage={"dataset": "d" * 64, "parent": None},
        )
        paths.append(bundle.path)
    return paths


@dataclass
class MlflowContent:
    """What a store holds, with ids replaced by names, so that two stores can be compared."""

    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    models: list[dict[str, Any]] = field(default_factory=list)


def read_content(uri: str, experiment: str = "rlinf-isaac", *, by_name: bool = True) -> MlflowContent:
    """Everything in one experiment. Fails on two runs of one name, or of one journal's uuid without `by_name`."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return MlflowContent()
    runs = client.search_runs([found.experiment_id], max_results=1000)
    names = {run.info.run_id: run.info.run_name if by_name else run.data.tags[RUN_TAG] for run in runs}
    assert len(set(names.values())) == len(runs), f"runs with equal names: {sorted(names.values())}"
    models = client.search_logged_models([found.experiment_id])
    model_names = {model.model_id: model.name for model in models}
    content = MlflowContent()

    def anonymous(text: str) -> str:
        for identifier, name in (names | model_names).items():
            text = text.replace(identifier, f"<{name}>")
        return text

    for run in (client.get_run(each.info.run_id) for each in runs):  # a search leaves out the model inputs
        inputs = run.inputs.dataset_inputs
        assert run.data.params.pop(CLAIM, COUNTS) == COUNTS, "an adopted one has none"
        content.runs[names[run.info.run_id]] = {
            "status": run.info.status,
            "end_time": run.info.end_time,
            "parent": names.get(run.data.tags.get("mlflow.parentRunId")),
            "params": run.data.params,
            "tags": {key: anonymous(value) for key, value in run.data.tags.items()},
            "metrics": {
                key: sorted((m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, key))
                for key in run.data.metrics
            },
            "artifacts": artifacts(client, run.info.run_id),
            "datasets": sorted((each.dataset.name, each.dataset.digest) for each in inputs),
            "model inputs": sorted(model_names[each.model_id] for each in run.inputs.model_inputs),
            "model outputs": sorted((model_names[o.model_id], o.step) for o in run.outputs.model_outputs),
        }
    content.models = sorted(
        (
            {
                "name": model.name,
                "status": str(model.status),
                "params": {key: value for key, value in model.params.items() if key != CLAIM},
                "tags": model.tags,
                "metrics": sorted(
                    ((m.key, m.step, m.value, m.dataset_digest) for m in model.metrics or []), key=repr
                ),  # the digest may be None
                "source": names.get(model.source_run_id),
            }
            for model in models
        ),
        key=lambda model: model["name"],
    )
    return content


def artifacts(client: Any, run_id: str, path: str | None = None) -> list[tuple[str, int]]:
    """(path, size) of all artifact files of a run."""
    files = []
    for entry in client.list_artifacts(run_id, path):
        files += artifacts(client, run_id, entry.path) if entry.is_dir else [(entry.path, entry.file_size)]
    return sorted(files)


@pytest.fixture
def content() -> Callable[[str], MlflowContent]:
    """`read_content`, for tests."""
    return read_content


@pytest.fixture
def sft_events(bundles) -> list[Event]:
    """What an engine says while it makes `bundles`."""
    return list(_sft_events(bundles))


@pytest.fixture
def evaluation_events(bundles, tmp_path) -> list[Event]:
    """What an engine says while it evaluates `bundles` on five seeds."""
    return list(_evaluation_events(bundles, tmp_path / "eval"))


def _sft_events(bundles: list[Path]) -> Iterator[Event]:
    """Ten metrics per checkpoint, and the checkpoints."""
    for path in bundles:
        bundle = read_bundle(path)
        for step in range(bundle.step - 400, bundle.step, 40):
            yield Metrics(step, {"train/loss": 1 / (step + 1), "train/lr": 1e-3}, time=1000.0 + step)
        yield Progress("sft", bundle.step, 800)
        yield CheckpointSaved(bundle.step, path, bundle.digest)


def _evaluation_events(bundles: list[Path], directory: Path, episodes: int = 5) -> Iterator[Event]:
    """Checkpoint k succeeds in the first k + 1 of the episodes, drops in the last, and times out in the others."""
    for rank, path in enumerate(bundles):
        bundle = read_bundle(path)
        results = directory / str(bundle.step)
        yield EvaluationStarted(bundle.step, path, bundle.digest)
        for number in range(episodes):
            outcome = "success" if number <= rank else "drop" if number == episodes - 1 else "timeout"
            seed = 5000 + number
            video = None
            if number in (1, 3):
                video = results / "videos" / f"seed_{seed}.mp4"
                video.parent.mkdir(parents=True, exist_ok=True)
                video.write_bytes(b"\0" * (100 * bundle.step + number))
                yield VideoSaved(bundle.step, seed, video, frames=10)
            yield EpisodeDone(
                EpisodeRow(
                    checkpoint_step=bundle.step,
                    checkpoint=bundle.digest,
                    seed=seed,
                    env_index=number,
                    success=outcome == "success",
                    outcome=outcome,
                    length=100 + number,
                    episode_return=float(number <= rank),
                    policy_seed=number,
                    subtasks={"grasp_1": True, "stack_1": outcome == "success"},
                    video=video and f"videos/{video.name}",
                )
            )
        yield EvaluationFinished(bundle.step, bundle.digest, results)


@pytest.fixture
def evaluation() -> Callable[..., Any]:
    """Make an evaluation of one checkpoint from the outcomes of its episodes, ``s``, ``d`` or ``t`` each."""
    return make_evaluation
