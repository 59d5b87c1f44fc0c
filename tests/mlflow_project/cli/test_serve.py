from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import numpy as np
import pytest
from serving_support import expected, observation
from support import only_error

from mlflow_project.serving.client import PolicyClient
from mlflow_project.serving.policy import ServedPolicy, serving_config
from rlinf_isaac.checkpoint.bundle import read_bundle


@pytest.fixture
def bundle(small_checkpoints, tmp_path) -> Path:
    """A copy that a test may break."""
    return shutil.copytree(small_checkpoints / "6", tmp_path / "checkpoint")


def port_of(process: subprocess.Popen) -> int:
    """Where the server says that it listens, once it does."""
    assert process.stdout is not None
    for line in process.stdout:
        if "ws://127.0.0.1:" in line:
            return int(line.rpartition(":")[2])
    raise AssertionError(process.communicate()[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_until_it_is_told_to_stop(start, bundle, number, monkeypatch, tmp_path):
    (tmp_path / "key").write_text("s3cret\n")
    process = start("serve", bundle, "--port", "0", "--api-key", f"file:{tmp_path / 'key'}")
    sealed = read_bundle(bundle)
    policy = ServedPolicy(sealed, serving_config(sealed))
    with PolicyClient(port=port_of(process), api_key="s3cret") as client:
        assert client.metadata["checkpoint"] == sealed.digest
        actions = client.infer(observation(0))["actions"]
        np.testing.assert_array_equal(actions, expected(policy, observation(0)))
        process.send_signal(number)
        assert process.wait(60) == 0
    assert "Traceback" not in process.stderr.read()


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def add_prompt(path: Path) -> None:
    config = json.loads(path.read_text())
    config["prompts"] = {"0": "Dance."}
    path.write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("damage", "file", "code"),
    [
        (flip, "model.safetensors", "bundle-file-changed"),
        (cut, "model.safetensors", "bundle-file-size"),
        (Path.unlink, "model.safetensors", "bundle-file-missing"),
        (Path.unlink, "bundle.json", "not-a-bundle"),
        (cut, "bundle.json", "manifest-damaged"),
        (add_prompt, "config.json", "bundle-file-size"),
        (flip, "isaaclab_stack_cube/norm_stats.json", "bundle-file-changed"),
        (Path.unlink, "assets/isaaclab_stack_cube/norm_stats.json", "bundle-file-missing"),
    ],
)
def test_a_damaged_bundle_never_answers(invoke, bundle, monkeypatch, damage, file, code):
    monkeypatch.setattr("mlflow_project.serving.server.serve_policy", lambda *_, **__: pytest.fail("it listens"))
    damage(bundle / file)
    only_error(invoke("serve", bundle), code)


def test_what_cannot_be_served(invoke, bundle, tmp_path):
    only_error(invoke("serve", tmp_path / "nothing"), "not-a-bundle")
    only_error(invoke("serve", "models:/stack-cube@champion"), "unknown-model")
    only_error(invoke("serve", bundle, "--api-key", "env:NOT_SET"), "no-api-key")
    result = invoke("serve", bundle, "--api-key", "s3cret")
    only_error(result, "no-api-key")
    assert "s3cret" not in result.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        only_error(invoke("serve", bundle, "--port", str(taken.getsockname()[1])), "address")


def test_everything_that_is_wrong_is_said_at_once(invoke, bundle):
    flip(bundle / "model.safetensors")
    result = invoke("serve", bundle, "--api-key", "env:NOT_SET", "--host", "0.0.0.0")
    assert result.exit_code == 2
    for code in ("no-api-key", "bundle-file-changed"):
        assert code in result.stderr


def test_an_open_server_is_warned_of(invoke, bundle):
    flip(bundle / "model.safetensors")
    result = invoke("serve", bundle, "--host", "0.0.0.0")
    assert "warning open-server" in result.stderr


@pytest.mark.parametrize("option", ["--max-batch=0", "--port=70000", "--max-message-mb=x", "--exact=maybe"])
def test_values_out_of_range(invoke, bundle, option):
    result = invoke("serve", bundle, option)
    assert result.exit_code == 2
    assert option.partition("=")[0] in result.stderr
