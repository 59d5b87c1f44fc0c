"""What a verb has left behind, in a form in which two ends can be compared: files, MLflow, leavings."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from rlinf_isaac.ground.digest import file_digest, json_digest

_KEPT_BY_MLFLOW = ("mlflow.db", "mlruns", "journal")
_OF_THE_CLOCK = re.compile(r"second|time|_s$|per_s|speed|throughput|memory", re.I)
"""Metrics whose values no two runs have in common."""
_OF_AN_IMAGE = re.compile(r"timestamp\+\d+\+[0-9a-f-]{36}")
"""What MLflow puts into the name of an image."""
_KERNELS = "torchinductor_"
"""Where torch keeps what it compiled."""
_ORPHANS_S = 8.0
"""How long a child may take to see that its parent is dead."""


@dataclass(frozen=True)
class EndState:
    """What two undisturbed runs have in common.

    Attributes:
        files: relative path -> sha256, without what MLflow and the journals keep.
        run: of the newest run at the top, and of all below it: what it holds, by name.
        models: name, digest and values of each LoggedModel.
        champion: sha256 of the bundle that each registered model's alias stands for.
    """

    files: dict[str, str]
    run: dict[str, Any]
    models: list[Any]
    champion: dict[str, str]


def end_state(directory: Path) -> EndState:
    """Of a verb that ran in `directory`."""
    with copied_store(directory) as uri:
        content, champion = _store_reader().read_content(uri, by_name=False), _champion(uri)
    return EndState(_files(directory), _newest_run(content.runs), _models(content.models), champion)


def faults_of_the_store(directory: Path) -> list[str]:
    """What no store may hold, however often a verb was killed."""
    with copied_store(directory) as uri:
        content = _store_reader().read_content(uri, by_name=False)
    faults = [f"a run is {run['status']}" for run in content.runs.values() if run["status"] in ("RUNNING", "FAILED")]
    for run in content.runs.values():
        for key, points in run["metrics"].items():
            if len({step for step, _, _ in points}) != len(points):
                faults.append(f"metric {key} is doubled")
    digests = [model["tags"].get("checkpoint.sha256") for model in content.models]
    return faults + [
        f"{digests.count(each)} LoggedModels of {each}" for each in set(digests) if digests.count(each) > 1
    ]


def leavings(directory: Path, temporary: Path, sessions: list[int]) -> list[str]:
    """What nobody wants any more: temporary siblings, files in the temporary directory, processes."""
    found = [str(path) for path in directory.rglob("*") if ".tmp-" in path.name]
    found += [
        str(path)
        for path in temporary.rglob("*")
        if path.name != ".lock" and path.parent != temporary and _KERNELS not in str(path)
    ]
    found += [str(path) for path in temporary.iterdir() if not path.name.startswith(("rlinf-isaac-", _KERNELS))]
    return found + [f"process {pid}" for pid in _alive(sessions)]


@contextmanager
def copied_store(directory: Path) -> Iterator[str]:
    """URI of a copy: MLflow keeps its connections, and would go on reading a file that another one has replaced."""
    with tempfile.TemporaryDirectory() as place:
        for file in directory.glob("mlflow.db*"):
            shutil.copy(file, place)
        yield f"sqlite:///{place}/mlflow.db"


def _files(directory: Path) -> dict[str, str]:
    paths = (path for path in sorted(directory.rglob("*")) if path.is_file())
    own = (path for path in paths if not set(path.relative_to(directory).parts) & set(_KEPT_BY_MLFLOW))
    return {str(path.relative_to(directory)): _digest(path) for path in own if not path.name.startswith(".mlflow")}


def _digest(path: Path) -> str:
    """sha256 of a file; of an engine's metrics without what the clock says."""
    if path.name != "metrics.jsonl":
        return file_digest(path)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    kept = [{key: value for key, value in line["values"].items() if not _OF_THE_CLOCK.search(key)} for line in lines]
    return json_digest([[line["step"], values] for line, values in zip(lines, kept, strict=True)])


def _newest_run(runs: dict[str, Any]) -> dict[str, Any]:
    """The newest finished run without a parent, and what is below it, by name."""
    top = [key for key, run in runs.items() if run["parent"] is None and run["status"] == "FINISHED"]
    if not top:
        return {}
    newest = max(top, key=lambda key: runs[key]["end_time"])
    members = {newest}
    while more := {key for key, run in runs.items() if run["parent"] in members} - members:
        members |= more
    return {runs[key]["tags"]["mlflow.runName"]: _held(runs[key]) for key in members}


def _held(run: dict[str, Any]) -> dict[str, Any]:
    metrics = {
        key: [(step, None if _OF_THE_CLOCK.search(key) else value) for step, _, value in points]
        for key, points in run["metrics"].items()
    }
    kept = {key: run[key] for key in ("status", "params", "datasets", "model inputs", "model outputs")}
    artifacts = sorted(_OF_AN_IMAGE.sub("", path) for path, _ in run["artifacts"])
    return kept | {"metrics": metrics, "artifacts": artifacts, "tags": sorted(run["tags"])}


def _models(models: list[dict[str, Any]]) -> list[Any]:
    return [
        (
            model["name"],
            model["status"],
            model["tags"].get("checkpoint.sha256"),
            sorted(
                {(key, step, None if _OF_THE_CLOCK.search(key) else value) for key, step, value, _ in model["metrics"]}
            ),
        )
        for model in models
    ]


def _champion(uri: str) -> dict[str, str]:
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return {
        f"{model.name}@{alias}": client.get_model_version(model.name, str(number)).tags["checkpoint.sha256"]
        for model in client.search_registered_models()
        for alias, number in model.aliases.items()
    }


def _alive(sessions: list[int]) -> list[int]:
    """Processes of these sessions that do not end by themselves."""
    return [pid for pid in _members(sessions) if not _ends(pid)]


def _members(sessions: list[int]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                # pid (name) state ppid pgrp session ...; the name may hold anything
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) in sessions and state != "Z":
                found.append(int(entry.name))
    return found


def _ends(pid: int) -> bool:
    try:
        end = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([end], [], [], _ORPHANS_S)[0])
    finally:
        os.close(end)


def _store_reader() -> Any:
    """The module of the tests that reads a whole store."""
    path = Path(__file__).parents[1] / "mlflow_project" / "conftest.py"
    spec = spec_from_file_location("store_reader", path)
    assert spec is not None
    assert spec.loader is not None
    if spec.name in sys.modules:
        return sys.modules[spec.name]
    module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module
