"""Reads and checks ``--backend-config ray.json`` of the backend ``rlinf-ray``. Imports neither Ray nor MLflow."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from shlex import quote
from typing import Any
from urllib.parse import urlsplit

from mlflow_project.tracking.redact import has_credentials, without_credentials
from rlinf_isaac.ground.errors import InvalidJob, Problem

ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
STOP_SECONDS = 30
"""Seconds that a stopped job gets to clean up before Ray kills it (Ray's default is 3 s)."""

_HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """Where and how a job runs.

    Attributes:
        address: URL of the cluster's job server, ``http://HEAD:8265``; by default RAY_API_SERVER_ADDRESS or
            RAY_ADDRESS. Ray's own variables set the authentication (RAY_AUTH_MODE, RAY_AUTH_TOKEN,
            RAY_AUTH_TOKEN_PATH).
        directory: working directory of the job on the cluster; relative paths, also of results, are below it.
        upload: whether to upload the project (without the files that .gitignore names); if not, the project must be
            in `directory`.
        venv: virtual or conda environment on the cluster that has the requirements; None uses Ray's PATH.
        env: variables of the job; None stands for the value on this machine. The cluster's dashboard shows them.
        runtime_env: further keys of Ray's runtime environment (``pip``, ``image_uri``, ``excludes``, ...).
        entrypoint_num_cpus: CPUs reserved for the entry point. Without any reservation it runs on the head node.
        entrypoint_num_gpus: GPUs reserved for the entry point.
        entrypoint_resources: custom resources reserved for the entry point.
        wait: whether ``mlflow run`` waits until the job has ended.
        patience_s: seconds without an answer of the job server after which the job counts as lost.
    """

    address: str
    directory: str
    upload: bool = True
    venv: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    runtime_env: Mapping[str, Any] = field(default_factory=dict)
    entrypoint_num_cpus: float = 0
    entrypoint_num_gpus: float = 0
    entrypoint_resources: Mapping[str, float] = field(default_factory=dict)
    wait: bool = True
    patience_s: float = 60.0

    @property
    def public_address(self) -> str:
        """`address` without user and password, for messages and tags."""
        return without_credentials(self.address)

    def entrypoint(self, run_id: str, command: str) -> str:
        """The job's shell command: sets up the environment and directory, then calls the entry point's `command`.

        MLFLOW_RUN_ID is set here and not in the job's environment, because Ray passes that on to all workers.
        """
        lines = [f"export MLFLOW_RUN_ID={quote(run_id)}"]
        # Ray starts the job in the uploaded copy (also in PYTHONPATH), which it deletes some time after the job.
        if self.upload:
            lines += [f"mkdir -p {quote(self.directory)}"]
        if self.venv is not None:
            lines += [f'export PATH={quote(self.venv)}/bin:"$PATH"']
        return "; ".join([*lines, f"cd {quote(self.directory)} || exit", command])

    def job_environment(self, project: str, variables: Mapping[str, str]) -> dict[str, Any]:
        """Ray's runtime environment of the job.

        Args:
            project: the project's directory on this machine.
            variables: further variables of the job, which override `env`.
        """
        stop = {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
        environment = {**self.runtime_env, "env_vars": {**stop, **self.env, **variables}}
        return environment | ({"working_dir": project} if self.upload else {})


def read_config(values: Mapping[str, Any]) -> RayConfig:
    """Make the config from the keys of ``ray.json`` and the environment.

    Raises:
        InvalidJob: lists all problems.
    """
    values = {"address": next(filter(None, map(os.environ.get, ADDRESS_VARIABLES)), None), **values}
    problems = []
    for key in values.keys() - _KEYS.keys():
        cure = f"use one of {', '.join(_KEYS)}"
        problems.append(Problem("ray-unknown-key", f"the backend config has no key {key!r}", cure))
    for key, (is_valid, meaning) in _KEYS.items():
        required = key in ("address", "directory")
        value = values.get(key)
        if value is None and required:
            problems.append(Problem("ray-missing-key", f"the backend config lacks {key!r}", f"give it {meaning}"))
        elif key in values and not is_valid(value):
            cause = f"{key} in the backend config is {value!r}"
            problems.append(Problem("ray-bad-value", cause, f"give it {meaning}"))
    env = values.get("env", {})
    missing = [name for name, value in env.items() if value is None and name not in os.environ] if _is_env(env) else []
    for name in missing:
        cause = f"env in the backend config passes {name} on, which is not set here"
        problems.append(Problem("ray-no-variable", cause, "set it, or give its value in the config"))
    if problems:
        raise InvalidJob(problems)
    env = {name: os.environ[name] if value is None else value for name, value in env.items()}
    return RayConfig(**{**values, "env": env, "address": values["address"].rstrip("/")})


def check_store(config: RayConfig, tracking_uri: str) -> list[Problem]:
    """Problems that keep the job from reaching the MLflow store on the cluster, or that expose a password."""
    problems = []
    uri, here = without_credentials(tracking_uri), urlsplit(config.address).hostname in _HERE
    parts = urlsplit(tracking_uri)
    if parts.scheme in ("", "file", "sqlite") or parts.hostname in _HERE:
        cause = f"the job is to record to {uri}, which is on this machine; the cluster is at {config.public_address}"
        cure = "set MLFLOW_TRACKING_URI to a server that the cluster reaches"
        if here:
            problems.append(Problem("ray-local-store", cause, f"{cure}, unless it is this machine", level="warning"))
        else:
            problems.append(Problem("ray-local-store", cause, cure))
    if has_credentials(tracking_uri):
        cause = f"MLFLOW_TRACKING_URI ({uri}) has a password in it, and Ray's dashboard shows a job's variables"
        cure = "leave it out, and give it to the cluster's nodes, in ~/.mlflow/credentials or MLFLOW_TRACKING_PASSWORD"
        problems.append(Problem("ray-password", cause, cure))
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN"):
        if name in os.environ and name not in config.env:
            cause = f"{name} is set here, and is not passed on to the job"
            cure = (
                f"if the job needs it, let the cluster's nodes have it, or pass it on with "
                f'"env": {{"{name}": null}} in the backend config: then Ray\'s dashboard shows it'
            )
            problems.append(Problem("ray-credentials", cause, cure, level="warning"))
    return problems


def check_version(config: RayConfig, version: str | None) -> list[Problem]:
    """A problem if the job would not run the version that ``mlflow run -v`` names."""
    if version is None or config.upload:
        return []
    cause = f"-v names {version}; with upload false the job runs what is in {config.directory}"
    return [Problem("ray-version", cause, "check it out there and leave out -v, or let upload be true")]


def _is_url(value: Any) -> bool:
    try:
        return isinstance(value, str) and urlsplit(value).scheme in ("http", "https") and bool(urlsplit(value).hostname)
    except ValueError:  # e.g. an unmatched bracket, or a character that a host cannot have
        return False


def _is_absolute(value: Any) -> bool:
    return isinstance(value, str) and PurePosixPath(value).is_absolute()


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_env(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(text, str | None) for text in value.values())


def _is_runtime_env(value: Any) -> bool:
    return isinstance(value, Mapping) and not value.keys() & {"working_dir", "env_vars"}


def _is_resources(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_amount, value.values()))


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


_AMOUNT = (_is_amount, "a number that is not negative")
_FLAG = (_is_flag, "true or false")
_KEYS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "address": (_is_url, 'the URL of the job server, "http://HEAD:8265", or set RAY_API_SERVER_ADDRESS to it'),
    "directory": (_is_absolute, "an absolute path on the cluster; relative paths of the job are below it"),
    "upload": _FLAG,
    "venv": (_is_absolute, "an absolute path on the cluster, of a virtual or conda environment"),
    "env": (_is_env, 'an object of names and strings; null stands for the value on this machine ({"HF_TOKEN": null})'),
    "runtime_env": (_is_runtime_env, "an object of Ray's; working_dir and env_vars come from upload and env"),
    "entrypoint_num_cpus": _AMOUNT,
    "entrypoint_num_gpus": _AMOUNT,
    "entrypoint_resources": (_is_resources, 'an object of names and amounts ({"head": 1})'),
    "wait": _FLAG,
    "patience_s": _AMOUNT,
}
