"""The backend `rlinf-ray`: refusals in any environment, and (tests marked `ray`) jobs of a real Ray cluster."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner, Result
from mlflow import MlflowClient
from mlflow.cli import cli as mlflow_cli
from mlflow.entities import Run
from mlflow.projects.backend import loader
from support import SHORT_EVALUATION, rows_of

from mlflow_project.cli import cli
from mlflow_project.plugins import ray_backend
from mlflow_project.plugins.ray_backend import RayBackend
from mlflow_project.plugins.ray_run import end_run
from rlinf_isaac.engines.rlinf.processes import OWNER, end_abandoned, end_owned, new_owner, owned, ray_directory
from rlinf_isaac.engines.rlinf.session import RAY_PORTS, free_ports, ray_head
from rlinf_isaac.ground.errors import InvalidJob

PROJECT = Path(__file__).parents[3]
PYTHON = os.environ.get("RLINF_PYTHON", sys.executable)
ENTRY_POINTS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["entry-points"]


def all_runs(store: str) -> list[Run]:
    client = MlflowClient(store)
    return client.search_runs([each.experiment_id for each in client.search_experiments()])


# Refused before anything starts


@pytest.fixture
def mlflow_run(store, monkeypatch) -> Callable[..., Result]:
    """`mlflow run -b rlinf-ray` in this process, with the backend registered as the installed package registers it."""
    monkeypatch.setitem(loader.MLFLOW_BACKENDS, "rlinf-ray", RayBackend)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)

    def run(config: dict, *options: str) -> Result:
        return CliRunner().invoke(
            mlflow_cli, ["run", str(PROJECT), "-b", "rlinf-ray", "-c", json.dumps(config), *options]
        )

    return run


def test_it_is_registered():
    target = f"{RayBackend.__module__}:{RayBackend.__name__}"
    assert ENTRY_POINTS["mlflow.project_backend"] == {ray_backend.NAME: target}


def test_the_command_shows_all_problems_and_makes_no_run(mlflow_run, store):
    result = mlflow_run({"address": "http://head:8265", "upload": "no", "python": "python3"}, "-e", "doctor")
    assert result.exit_code == 2, result.output
    for code in ("ray-bad-value", "ray-missing-key", "ray-unknown-key"):
        assert code in result.stderr
    assert all_runs(store) == []


def test_a_store_that_the_cluster_cannot_reach(mlflow_run, store):
    result = mlflow_run({"address": "http://head:8265", "directory": "/work"}, "-e", "doctor")
    assert result.exit_code == 2, result.output
    assert "ray-local-store" in result.stderr
    assert all_runs(store) == []


def test_a_program_gets_an_exception(mlflow_run, store):
    with pytest.raises(InvalidJob, match="ray-bad-value"):
        mlflow.projects.run(str(PROJECT), backend="rlinf-ray", backend_config={"address": "head", "directory": "/work"})


@pytest.mark.parametrize(
    ("before", "job", "after"),
    [
        ("RUNNING", "FINISHED", "FINISHED"),
        ("RUNNING", "FAILED", "FAILED"),
        ("RUNNING", "KILLED", "KILLED"),
        ("FINISHED", "FINISHED", "FINISHED"),
        ("FINISHED", "FAILED", "FAILED"),  # the entry point failed after it had ended its run
        ("KILLED", "FAILED", "KILLED"),  # it was interrupted, ended its run, and left with an exit code
        ("FAILED", "KILLED", "FAILED"),
    ],
)
def test_a_run_ends_as_its_job_unless_the_job_knew_better(store, before, job, after):
    client = MlflowClient(store)
    run = client.create_run("0").info.run_id
    if before != "RUNNING":
        client.set_terminated(run, before)
    assert end_run(client, run, job, "why") == after
    found = client.get_run(run)
    assert found.info.status == after
    assert found.data.tags.get("failure.reason") == ("why" if before != after and after != "FINISHED" else None)


def test_a_job_that_was_lost_may_have_finished(store):
    client = MlflowClient(store)
    run = client.create_run("0").info.run_id
    client.set_terminated(run, "FINISHED")
    assert end_run(client, run, "FAILED", "no answer", seen=False) == "FINISHED"
    assert client.get_run(run).info.status == "FINISHED"


# On a real cluster


@dataclass
class Head:
    """A Ray head with a job server and a token, in a directory of its own. Its processes carry an owner's name, so that
    all are found whatever happens to the test."""

    owner: str = field(default_factory=new_owner)
    token: str = field(default_factory=lambda: secrets.token_hex(24))
    port: int = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def variables(self) -> dict[str, str]:
        return {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}

    def start(self) -> None:
        end_abandoned()
        directory = ray_directory(self.owner)
        directory.mkdir(mode=0o700)
        ports = free_ports(len(RAY_PORTS))
        self.port = ports[RAY_PORTS.index("dashboard-port")]
        command = [*ray_head(PYTHON, directory, ports), "--include-dashboard=true", "--num-cpus=2"]
        environment = os.environ | self.variables() | {OWNER: self.owner, "RAY_TMPDIR": str(directory)}
        with open(directory / "head.log", "w+") as log:
            status = subprocess.run(command, env=environment, stdout=log, stderr=log, start_new_session=True).returncode
            assert status == 0, log.seek(0) or log.read()
        while not self.answers():
            threading.Event().wait(0.1)  # it needs the cores to get there

    def answers(self) -> bool:
        try:
            self.get("/api/jobs/")
        except OSError:
            return False
        return True

    def get(self, path: str) -> list | dict:
        request = urllib.request.Request(self.address + path, headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def job_status(self, run: Run) -> str:
        return self.get(f"/api/jobs/{run.data.tags['ray.job_id']}")["status"]

    def end(self) -> None:
        end_owned(self.owner)
        shutil.rmtree(ray_directory(self.owner), ignore_errors=True)


def _running_head() -> Iterator[Head]:
    head = Head()
    try:
        head.start()
        yield head
    finally:
        head.end()


head = pytest.fixture(scope="module", name="head")(_running_head)
mortal_head = pytest.fixture(name="mortal_head")(_running_head)  # for a test that kills it


@pytest.fixture
def launch(store, tmp_path) -> Iterator[Callable[..., subprocess.Popen]]:
    """Start Python with the plugin installed, as a user of `head` would: `-m mlflow run` and so on."""
    metadata = tmp_path / "site/rlinf_isaac-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: rlinf-isaac\nVersion: 0\n")
    lines = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in each.items()) for group, each in ENTRY_POINTS.items()]
    (metadata / "entry_points.txt").write_text("".join(lines))
    processes = []

    def start(head: Head, *arguments: str | Path, config: dict | None = None) -> subprocess.Popen:
        values = {"address": head.address, "directory": str(tmp_path / "cluster"), "venv": str(Path(PYTHON).parents[1])}
        (tmp_path / "ray.json").write_text(json.dumps(values | (config or {})))
        path = os.pathsep.join([str(tmp_path / "site"), str(PROJECT)])
        environment = os.environ | head.variables() | {"MLFLOW_TRACKING_URI": store, "PYTHONPATH": path}
        process = subprocess.Popen(
            [PYTHON, *map(str, arguments)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.wait()
        process.stdout.close()


def on_ray(entry_point: str, project: Path = PROJECT, **parameters: str | Path) -> list[str]:
    options = [word for key, value in parameters.items() for word in ("-P", f"{key}={value}")]
    return [
        "-m",
        "mlflow",
        "run",
        str(project),
        "-b",
        "rlinf-ray",
        "--backend-config",
        "ray.json",
        "-e",
        entry_point,
        *options,
    ]


def project_of(tmp_path: Path, command: str) -> Path:
    """An MLflow project with this one entry point."""
    root = tmp_path / "project"
    root.mkdir()
    (root / "MLproject").write_text(json.dumps({"name": "p", "entry_points": {"main": {"command": command}}}))
    return root


def output_until(process: subprocess.Popen, text: str) -> str:
    seen = []
    for line in process.stdout:
        seen.append(line)
        if text in line:
            return "".join(seen)
    raise AssertionError(f"{text!r} never appeared in:\n{''.join(seen)}")


def processes_of(run_id: str) -> list[int]:
    """Processes that were given this run, the job's shell and what it started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"MLFLOW_RUN_ID={run_id}".encode() in path.read_bytes():
                found.append(int(path.parent.name))
        except OSError:
            pass
    return found


@pytest.mark.ray
@pytest.mark.parametrize("engine", ["local", "rlinf", "rlinf on the job's own cluster"])
def test_an_evaluation_is_what_it_is_without_ray(head, launch, store, small_checkpoints, tmp_path, engine):
    parameters = {"ckpt_root": small_checkpoints, "ckpt_steps": "2,6", "overrides": SHORT_EVALUATION}
    more = {"engine": engine.split()[0], "ray_address": "env" if "cluster" in engine else "auto"}
    process = launch(head, *on_ray("eval", **parameters, **more), "--run-name", "on Ray")
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert "Checkpoints by success" in output
    options = [word for key, value in parameters.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    assert CliRunner().invoke(cli, ["eval", *options, "--output", "here"]).exit_code == 0

    assert rows_of(tmp_path / "cluster/result") == rows_of(tmp_path / "here")
    runs = all_runs(store)
    assert {run.info.status for run in runs} == {"FINISHED"}
    [parent] = [run for run in runs if run.info.run_name == "on Ray"]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(run.info.run_name for run in children) == ["step-2", "step-6"]
    for child in children:
        [twin] = [run for run in runs if run.info.run_name == child.info.run_name and run not in children]
        if engine == "local":
            assert child.data.metrics == twin.data.metrics
        assert child.data.metrics["eval/success_once"] == twin.data.metrics["eval/success_once"]
    tags = parent.data.tags
    assert (tags["mlflow.project.backend"], tags["mlflow.project.entryPoint"]) == ("rlinf-ray", "eval")
    assert (tags["ray.address"], head.job_status(parent)) == (head.address, "SUCCEEDED")
    assert len(tags["mlflow.source.git.commit"]) == 40


@pytest.mark.ray
def test_a_refused_job_fails(head, launch, store, tmp_path):
    process = launch(head, *on_ray("eval", ckpt_root=tmp_path / "nowhere"))
    output = process.communicate()[0]
    assert process.returncode == 1, output
    [run] = all_runs(store)
    assert run.info.status == "FAILED"
    assert "missing-ckpt-root" in run.data.tags["failure.reason"]
    assert head.job_status(run) == "FAILED"


@pytest.mark.ray
def test_a_job_that_dies_before_it_adopts_its_run(head, launch, store, tmp_path):
    process = launch(head, *on_ray("main", project_of(tmp_path, "echo last words; kill -9 $$")))
    output = process.communicate()[0]
    assert process.returncode == 1, output
    [run] = all_runs(store)
    assert run.info.status == "FAILED"
    assert "last words" in run.data.tags["failure.reason"]


@pytest.mark.ray
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_stops_the_job(head, launch, store, small_checkpoints, number):
    process = launch(head, *on_ray("eval", ckpt_root=small_checkpoints, ckpt_steps="2,6", episodes="500"))
    output_until(process, "solved")
    [parent] = [run for run in all_runs(store) if "ray.job_id" in run.data.tags]
    assert processes_of(parent.info.run_id)
    process.send_signal(number)
    output = process.communicate()[0]
    assert process.returncode == {signal.SIGINT: 1, signal.SIGTERM: 143}[number], output
    assert {run.info.status for run in all_runs(store)} == {"KILLED"}
    assert head.job_status(parent) == "STOPPED"
    assert processes_of(parent.info.run_id) == []


@pytest.mark.ray
def test_an_interrupt_while_the_job_waits_for_resources(head, launch, store, tmp_path):
    config = {"entrypoint_resources": {"what nobody has": 1}}
    process = launch(head, *on_ray("main", project_of(tmp_path, "true")), config=config)
    output_until(process, "waiting for resources")
    process.send_signal(signal.SIGINT)
    process.communicate()
    assert [run.info.status for run in all_runs(store)] == ["KILLED"]


PROGRAM = """
import sys, mlflow
first = mlflow.projects.run(sys.argv[1], backend="rlinf-ray", backend_config="ray.json", synchronous=False)
print(first.get_status())
first.cancel()
print(first.get_status(), first.wait())
second = mlflow.projects.run(sys.argv[2], backend="rlinf-ray", backend_config="ray.json", synchronous=False)
print(second.wait(), second.get_status())
try:
    mlflow.projects.run(sys.argv[3], backend="rlinf-ray", backend_config="ray.json", run_name="third")
except mlflow.exceptions.ExecutionException as error:
    print(error)
"""


@pytest.mark.ray
def test_a_program_does_not_have_to_wait(head, launch, store, tmp_path):
    commands = ("tail -f /dev/null", "echo hello", "false")
    projects = []
    for number, command in enumerate(commands):
        (tmp_path / str(number)).mkdir()
        projects.append(project_of(tmp_path / str(number), command))
    (tmp_path / "program.py").write_text(PROGRAM)
    process = launch(head, tmp_path / "program.py", *projects)
    output = process.communicate()[0]
    assert process.returncode == 0, output
    lines = output.splitlines()
    assert lines.index("RUNNING") < lines.index("KILLED False") < lines.index("hello") < lines.index("True FINISHED")
    assert [run.info.status for run in reversed(all_runs(store))] == ["KILLED", "FINISHED", "FAILED"]
    assert "third" in [run.info.run_name for run in all_runs(store)]


@pytest.mark.ray
def test_what_nobody_waited_for_is_put_right_by_the_next_submission(head, launch, store, tmp_path):
    project = project_of(tmp_path, "kill -9 $$")
    process = launch(head, *on_ray("main", project), config={"wait": False})
    output = process.communicate()[0]
    assert process.returncode == 0, output
    [first] = all_runs(store)
    assert first.info.status == "RUNNING"
    while head.job_status(first) != "FAILED":
        pass
    client = MlflowClient(store)
    gone = client.create_run("0", tags={"ray.address": head.address, "ray.job_id": "of a cluster that is gone"})
    elsewhere = client.create_run("0", tags={"ray.address": "http://elsewhere:8265", "ray.job_id": "1"})
    launch(head, *on_ray("main", project)).communicate()
    assert client.get_run(first.info.run_id).info.status == "FAILED"
    assert client.get_run(gone.info.run_id).info.status == "FAILED"
    assert client.get_run(elsewhere.info.run_id).info.status == "RUNNING"


@pytest.mark.ray
def test_nothing_starts_without_a_job_server(head, launch, store, dead_uri):
    process = launch(head, *on_ray("doctor"), config={"address": dead_uri})
    assert "ray-unreachable" in process.communicate()[0]
    stranger = Head(port=head.port)
    refused = launch(stranger, *on_ray("doctor"))
    assert "ray-unreachable" in refused.communicate()[0]
    assert (process.returncode, refused.returncode) == (2, 2)
    assert all_runs(store) == []


@pytest.mark.ray
def test_a_job_that_ray_does_not_take(head, launch, store):
    process = launch(head, *on_ray("doctor"), config={"runtime_env": {"pip": 1}})
    output = process.communicate()[0]
    assert (process.returncode, "ray-refused" in output) == (2, True), output
    assert [run.info.status for run in all_runs(store)] == ["FAILED"]


@pytest.mark.ray
def test_the_cluster_is_killed(mortal_head, launch, store, small_checkpoints):
    parameters = {"ckpt_root": small_checkpoints, "ckpt_steps": "2,6", "episodes": "500"}
    process = launch(mortal_head, *on_ray("eval", **parameters), config={"patience_s": 3})
    output_until(process, "solved")
    [parent] = [run for run in all_runs(store) if "ray.job_id" in run.data.tags]
    end_owned(mortal_head.owner)
    output = process.communicate()[0]
    assert process.returncode == 1, output
    found = MlflowClient(store).get_run(parent.info.run_id)
    assert found.info.status == "FAILED"
    assert "has not answered for 3 s" in found.data.tags["failure.reason"]


@pytest.mark.ray
def test_only_the_job_server_is_killed(mortal_head, launch, store, small_checkpoints):
    parameters = {"ckpt_root": small_checkpoints, "ckpt_steps": "2", "episodes": "60"}
    process = launch(mortal_head, *on_ray("eval", **parameters), config={"patience_s": 0})
    output_until(process, "solved")
    [parent] = [run for run in all_runs(store) if "ray.job_id" in run.data.tags]
    for pid in owned(mortal_head.owner):
        if b"dashboard/dashboard.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
    output = process.communicate()[0]
    assert process.returncode == 1, output
    client = MlflowClient(store)
    assert client.get_run(parent.info.run_id).info.status == "FAILED"
    while processes_of(parent.info.run_id):
        pass
    assert client.get_run(parent.info.run_id).info.status == "FINISHED"
