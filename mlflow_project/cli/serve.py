"""`serve`: a checkpoint as a policy server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, stdout, verb_session
from mlflow_project.tracking.address import check_address
from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.ground.reading import read_bytes
from rlinf_isaac.jobs.serving import plan

if TYPE_CHECKING:
    from mlflow_project.serving.policy import Exact, ServedPolicy
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.config.schema import JobConfig
    from rlinf_isaac.preflight import Findings

EXAMPLE = """\b
Example:
  rlinf-isaac serve models:/stack-cube@champion
  rlinf-isaac serve result/isaaclab_openpi/sft/tiny-0123abcd/checkpoints/1200 --port 8001
  mlflow run . -e serve -P model=models:/stack-cube@champion"""

_MAX_KEY_BYTES = 10_000
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _number(name: str, least: int, most: int, default: int, help: str) -> Callable[[options.Command], options.Command]:
    return click.option(name, type=click.IntRange(least, most), default=default, show_default=True, help=help)


@click.command("serve", epilog=EXAMPLE)
@click.argument("model")
@options.option("--host", "Address to listen on; 0.0.0.0: every network this machine is in.", "127.0.0.1")
@_number("--port", 0, 65535, 8000, "Port to listen on; 0: any free one.")
@options.option("--api-key", "Where the key lies that clients must send: env:NAME, file:PATH, or none.", "none")
@_number("--max-batch", 1, 1024, 8, "Most requests answered by one call of the model.")
@_number("--batch-wait-ms", 0, 10_000, 5, "How long a request waits for others to share a call with.")
@_number("--max-message-mb", 1, 1024, 16, "Largest observation, in MiB.")
@_number("--max-connections", 1, 10_000, 64, "Most clients at a time.")
@click.option(
    "--exact",
    type=click.Choice(["auto", "true", "false"]),
    default="auto",
    show_default=True,
    help="Actions bit by bit as in the evaluation, whatever the batch; auto: on the CPU.",
)
@_number("--traces", 0, 6000, 0, "Calls recorded as MLflow traces, at most so many a minute; 0: none.")
@options.flag("--any-prompt", "Take prompts that the training did not have.")
@options.option("--task", "Task of a checkpoint of several; auto: all, if they share their norm stats.")
@options.assume
@options.device
def command(
    model: str,
    host: str,
    port: int,
    api_key: str,
    max_batch: int,
    batch_wait_ms: int,
    max_message_mb: int,
    max_connections: int,
    exact: Exact,
    traces: int,
    any_prompt: bool,
    task: str,
    assume: str,
    device: str,
) -> None:
    """Serve MODEL to robots, by OpenPI's websocket protocol.

    MODEL is models:/name@alias, models:/name/version, a model id (m-...), hf://org/name or a directory. It is
    downloaded once, and verified before it answers anything. Not a tracked run: what is served, and why, is recorded
    with the model's version, and a server has no result. SIGTERM ends it when it has answered what it had accepted.
    """
    with verb_session():
        with preflight() as findings:
            key = None
            with findings.collect():
                key = _read_key(api_key)
            if host not in LOOPBACK and api_key == "none":
                cause = f"everyone who can reach {host}:{port} may use the policy"
                findings.add([Problem("open-server", cause, "set --api-key, or leave --host out", "warning")])
            findings.add(check_address(host, port))
            job = check(findings, model, device, assume, task)
        assert job is not None
        from mlflow_project.serving.policy import ServedPolicy
        from mlflow_project.serving.server import Limits, serve_policy
        from mlflow_project.serving.traces import Traces

        bundle, config = job
        policy = ServedPolicy(bundle, config, max_batch=max_batch, exact=exact, any_prompt=any_prompt)
        limits = Limits(batch_wait_ms / 1e3, max_message_mb << 20, max_connections, key)
        written = Traces(bundle, traces) if traces else None
        heard = written.note if written else None
        try:
            serve_policy(policy, host, port, limits, lambda port: _announce(policy, host, port), heard)
        finally:
            if written:
                written.close()


def check(
    findings: Findings, model: str, device: str, assume: str = "none", task: str = options.AUTO
) -> tuple[Bundle, JobConfig] | None:
    """The verified bundle of the model and its job on this device, unless `findings` has errors."""
    from mlflow_project.serving.resolve import resolve_model

    with findings.collect():
        return plan(findings, resolve_model(model), device, assume, task)
    return None


def _read_key(place: str) -> str | None:
    """The API key that ``env:NAME`` or ``file:PATH`` holds. Not the key itself: options are seen in process lists.

    Raises:
        InvalidJob: it is not there.
    """
    kind, _, name = place.partition(":")
    if place == "none":
        return None
    if kind == "env" and os.environ.get(name):
        return os.environ[name]
    if kind == "file" and (key := _key_in(Path(name))):
        return key
    # Not the value itself: someone may have given the key.
    cause = f"--api-key names {place if kind in ('env', 'file') else 'neither env: nor file:'}, and there is no key"
    raise InvalidJob.of("no-api-key", cause, "use env:NAME with that variable set, file:PATH, or none")


def _key_in(file: Path) -> str:
    """The key in a file; empty where there is none that can be read."""
    try:
        return read_bytes(file, _MAX_KEY_BYTES).decode().strip()
    except (OSError, ValueError):
        return ""


def _announce(policy: ServedPolicy, host: str, port: int) -> None:
    bundle, spec = policy.bundle, policy.spec
    stdout.print(f"serving {bundle.name} ({bundle.digest[:16]}) at ws://{host}:{port}")
    values = {spec.spellings[slot][0]: feature.rpartition(".")[2] for slot, feature in spec.cameras.items()}
    sent = "".join(f'"{name}": {value}, ' for name, value in values.items())
    stdout.print(
        "from openpi_client.websocket_client_policy import WebsocketClientPolicy\n"
        f'actions = WebsocketClientPolicy("{host}", {port}).infer({{{sent}"{spec.spellings["state"][0]}": state}})'
        '["actions"]',
        lines=True,
    )
