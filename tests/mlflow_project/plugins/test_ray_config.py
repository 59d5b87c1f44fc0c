"""ray.json: what it may hold, what is refused, and the shell command that a job gets."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_project.plugins.ray_config import RayConfig, check_store, check_version, read_config
from rlinf_isaac.ground.errors import InvalidJob

MINIMAL = {"address": "http://head:8265", "directory": "/work"}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def codes(values: dict) -> list[str]:
    with pytest.raises(InvalidJob) as caught:
        read_config(values)
    return [problem.code for problem in caught.value.problems]


def test_defaults():
    config = read_config(MINIMAL)
    assert (config.address, config.directory, config.upload, config.wait) == ("http://head:8265", "/work", True, True)


def test_a_slash_at_the_end_of_the_address_does_not_matter():
    assert read_config(MINIMAL | {"address": "https://head/ray/"}).address == "https://head/ray"


def test_the_address_comes_from_rays_own_variables(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://second:8265")
    assert read_config({"directory": "/work"}).address == "http://second:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://first:8265")
    assert read_config({"directory": "/work"}).address == "http://first:8265"
    assert read_config(MINIMAL).address == "http://head:8265"


def test_all_problems_at_once():
    assert sorted(codes({"adress": "http://head:8265", "upload": "yes", "env": {"NOT_SET_ANYWHERE": None}})) == [
        "ray-bad-value",
        "ray-missing-key",
        "ray-missing-key",
        "ray-no-variable",
        "ray-unknown-key",
    ]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("address", "head:8265"),
        ("address", "ray://head:10001"),
        ("address", "http://"),
        ("address", 8265),
        ("directory", "results"),
        ("directory", ""),
        ("upload", 1),
        ("wait", None),
        ("venv", "venv"),
        ("env", ["A=1"]),
        ("env", {"A": 1}),
        ("runtime_env", {"working_dir": "."}),
        ("runtime_env", {"env_vars": {}}),
        ("entrypoint_num_cpus", -1),
        ("entrypoint_num_cpus", True),
        ("entrypoint_num_gpus", float("nan")),
        ("entrypoint_resources", {"head": "1"}),
        ("patience_s", float("inf")),
    ],
)
def test_a_bad_value(key, value):
    assert codes(MINIMAL | {key: value}) == ["ray-bad-value"]


def test_null_in_env_stands_for_the_value_here(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "of this machine")
    assert read_config(MINIMAL | {"env": {"HF_TOKEN": None, "A": "b"}}).env == {"HF_TOKEN": "of this machine", "A": "b"}


def test_what_ray_is_told():
    config = read_config(MINIMAL | {"env": {"A": "b", "MLFLOW_EXPERIMENT_ID": "7"}, "runtime_env": {"pip": ["x"]}})
    environment = config.job_environment("/project", {"MLFLOW_EXPERIMENT_ID": "1"})
    assert environment["working_dir"] == "/project"
    assert environment["pip"] == ["x"]
    assert environment["env_vars"] == {"A": "b", "MLFLOW_EXPERIMENT_ID": "1", "RAY_JOB_STOP_WAIT_TIME_S": "30"}
    assert "working_dir" not in read_config(MINIMAL | {"upload": False}).job_environment("/project", {})


@given(name=st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_the_command_runs_in_the_directory_whatever_it_is_called(tmp_path_factory, name):
    if name in (".", "..") or len(name.encode()) > 255:
        return
    root = tmp_path_factory.mktemp("cluster")
    config = RayConfig(address="http://head:8265", directory=str(root / name), venv=str(root))
    command = config.entrypoint("0123", 'printf %s "$MLFLOW_RUN_ID" > run; printf %s "$PATH" > path')
    subprocess.run(command, shell=True, check=True)
    assert (root / name / "run").read_text() == "0123"
    assert (root / name / "path").read_text().startswith(f"{root}/bin:")


def test_without_its_directory_a_job_that_was_not_uploaded_runs_nothing(tmp_path):
    config = RayConfig(address="http://head:8265", directory=str(tmp_path / "missing"), upload=False)
    command = config.entrypoint("0123", f"touch {tmp_path}/ran")
    assert subprocess.run(command, shell=True, stderr=subprocess.DEVNULL).returncode != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("uri", ["sqlite:////data/mlflow.db", "file:///data/mlruns", "/data", "http://localhost:5000"])
def test_a_store_of_this_machine_is_refused_for_another_machines_cluster(uri):
    levels = {host: [(each.code, each.level) for each in check_store(at(host), uri)] for host in ("head", "127.0.0.1")}
    assert levels == {"head": [("ray-local-store", "error")], "127.0.0.1": [("ray-local-store", "warning")]}


def at(host: str) -> RayConfig:
    return read_config(MINIMAL | {"address": f"http://{host}:8265"})


def test_a_server_is_fine_and_its_password_is_asked_about(monkeypatch):
    assert check_store(at("head"), "https://mlflow.example.org") == []
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "hunter2")
    [problem] = check_store(at("head"), "https://mlflow.example.org")
    assert (problem.code, problem.level) == ("ray-credentials", "warning")
    assert "hunter2" not in str(problem)
    config = read_config(MINIMAL | {"env": {"MLFLOW_TRACKING_TOKEN": None}})
    assert check_store(config, "https://mlflow.example.org") == []


@pytest.mark.parametrize("uri", ["http://me:hunter2@server:5000", "postgresql://server/x?user=me&password=hunter2"])
def test_a_password_in_the_stores_address_is_refused_and_not_printed(uri):
    [problem] = check_store(at("head"), uri)
    assert (problem.code, problem.level) == ("ray-password", "error")
    assert "hunter2" not in str(problem)


def test_a_password_in_the_clusters_address_is_not_shown():
    config = read_config(MINIMAL | {"address": "http://me:hunter2@head:8265/"})
    assert (config.address, config.public_address) == ("http://me:hunter2@head:8265", "http://head:8265")


def test_a_version_that_would_not_run_is_refused():
    config = read_config(MINIMAL | {"upload": False})
    assert check_version(config, None) == []
    assert [each.code for each in check_version(config, "v1")] == ["ray-version"]
    assert check_version(read_config(MINIMAL), "v1") == []
