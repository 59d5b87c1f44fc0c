"""Robots of others, by a task's file alone: from a dataset to a served policy that takes this robot's observations.

The first tests are of datasets that our own writer made. The last are opt-in (CONTRIBUTING.md, "Opt-in tests"):
lerobot's own writer makes them, in its version of the format, and OpenPI's client asks where it is installed:

    lerobot-venv/bin/python -m pytest -m lerobot tests/mlflow_project/cli/test_robots.py
    openpi-venv/bin/python -m pytest -m lerobot tests/mlflow_project/cli/test_robots.py
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from robots import ALOHA, ALOHA_GROUPED, FRANKA, Invoke, Robot, begin, succeed
from support import SMALL_PRESET, only_error

from mlflow_project.serving.client import PolicyClient
from mlflow_project.serving.log_model import log_policy_model, read_requests
from mlflow_project.serving.policy import ServedPolicy, serving_config
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.lerobot.reader import LeRobotDataset
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.tasks.adapters import ADAPTERS
from rlinf_isaac.tasks.read import read_task


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def train(invoke: Invoke, dataset: Path, file: Path) -> Path:
    """Two steps of a small model; the checkpoint."""
    settings = ("--dataset", dataset, "--task", file, "--preset", SMALL_PRESET)
    done = succeed(invoke("sft", *settings, "--steps", "2", "--output", file.with_name("out")))
    checkpoints = Path(next(line for line in done.stdout.splitlines() if line.startswith("checkpoints")).split()[1])
    return checkpoints / "2"


def port_of(process: Any) -> int:
    for line in process.stdout:
        if "ws://127.0.0.1:" in line:
            return int(line.rpartition(":")[2])
    raise AssertionError(process.communicate()[1])


def test_from_a_dataset_to_a_server(invoke, start, store, tmp_path):
    """ALOHA, adapted and with joints relative to the state."""
    dataset = ALOHA.write(tmp_path / "data")
    file = begin(invoke, dataset, **{"# adapt: aloha": "adapt: aloha", "delta: none": "delta: 6,-1,6,-1"})
    policy = check_all(invoke, start, dataset, file, ALOHA)
    check_pyfunc(policy, store)


@pytest.mark.lerobot
@pytest.mark.parametrize("videos", [False, True], ids=["images", "videos"])
@pytest.mark.parametrize("robot", [ALOHA_GROUPED, FRANKA], ids=lambda robot: robot.name)
def test_what_lerobot_wrote(invoke, start, tmp_path, robot: Robot, videos: bool):
    pytest.importorskip("lerobot")
    dataset = robot.write_with_lerobot(tmp_path / "data", videos=videos)
    check_all(invoke, start, dataset, begin(invoke, dataset), robot)


def check_all(invoke: Invoke, start: Callable, dataset: Path, file: Path, robot: Robot) -> ServedPolicy:
    task = read_task(file)
    settings = ("--dataset", dataset, "--task", file, "--preset", SMALL_PRESET)
    done = succeed(invoke("norm_stats", *settings, "--output", file.with_name("out"), "--overrides", ONE_BATCH))
    stats = from_json(Path(done.stdout.split()[-1]).read_bytes(), "norm stats")
    assert len(stats.state.mean) == robot.state
    states = LeRobotDataset(dataset).column("observation.state")
    adapted = ADAPTERS[task.adapt].state(states) if task.adapt else states
    np.testing.assert_allclose(stats.state.mean, adapted.mean(0, np.float64), atol=1e-5)
    bundle = read_bundle(train(invoke, dataset, file))
    config = serving_config(bundle)
    assert task_of(config).digest == task.digest
    policy = ServedPolicy(bundle, config)
    expected = policy.infer([policy.spec.parse(robot.observation() | {"noise_key": [0, 1, 2]}, (0, 0, 0))])[0]
    assert expected.shape == (config.policy.action_chunk, robot.action)
    port = port_of(start("serve", bundle.path, "--port", "0"))
    for client in clients(port):
        metadata, infer = client
        assert metadata["task"] == task.name
        assert metadata["task_digest"] == task.digest
        assert metadata["control_hz"] == robot.fps
        assert list(metadata["cameras"]) == list(robot.cameras)
        for channels_first in (False, True):
            sent = robot.observation(channels_first=channels_first) | {"noise_key": [0, 1, 2]}
            np.testing.assert_array_equal(infer(sent)["actions"], expected)
        missing = {key: value for key, value in robot.observation().items() if key not in ("images", *robot.sent)}
        with pytest.raises(RuntimeError, match="observation-missing"):
            infer(missing)
    return policy


def check_pyfunc(policy: ServedPolicy, store: str) -> None:
    """The registered model of this robot has its inputs, and gives the same actions."""
    mlflow.set_tracking_uri(store)
    model = mlflow.pyfunc.load_model(log_policy_model(policy.bundle).model_uri)
    names = ["images/cam_high", "images/cam_left_wrist", "images/cam_right_wrist", "state", "prompt"]
    assert [each.name for each in model.metadata.signature.inputs.inputs] == names
    example = model.input_example
    np.testing.assert_array_equal(model.predict(example), policy.infer(read_requests(example, None, policy.spec)))


ONE_BATCH = "norm_stats.batch_size=1"


def clients(port: int) -> list[tuple[dict[str, Any], Callable[[dict[str, Any]], dict[str, Any]]]]:
    """Metadata and `infer` of our client and, where it is installed, of OpenPI's own."""
    ours = PolicyClient(port=port)
    found = [(ours.metadata, ours.infer)]
    if importlib.util.find_spec("openpi_client"):
        from openpi_client.websocket_client_policy import WebsocketClientPolicy

        theirs = WebsocketClientPolicy("127.0.0.1", port)
        found.append((theirs.get_server_metadata(), theirs.infer))
    return found


def test_a_dataset_of_another_robot_is_refused(invoke, tmp_path):
    file = begin(invoke, FRANKA.write(tmp_path / "franka" / "data"))
    other = ALOHA.write(tmp_path / "aloha" / "data")
    refused = invoke("doctor", "--dataset", other, "--task", file)
    assert refused.exit_code == 2
    for code in ("no-feature", "feature-dim", "fps", "prompt"):
        assert f"error {code} " in refused.stdout


def test_a_base_of_another_robot(invoke, small_checkpoints, tmp_path):
    """A checkpoint of stack-cube: what the task decides is not taken from it."""
    dataset = ALOHA.write(tmp_path / "data")
    file = begin(invoke, dataset, **{"delta: none": "delta: 6,-1,6,-1"})
    settings = ("--dataset", dataset, "--task", file, "--base", small_checkpoints / "6", "--steps", "1")
    succeed(invoke("sft", *settings, "--output", tmp_path / "out"))
    (bundle,) = (read_bundle(path.parent) for path in (tmp_path / "out").rglob("checkpoints/*/config.json"))
    config = serving_config(bundle)
    assert (config.policy.env_action_dim, config.policy.delta_actions) == (14, "6,-1,6,-1")
    assert (task_of(config).digest, bundle.asset_id) == (read_task(file).digest, "aloha")
    for verb in ("eval", "rl"):
        only_error(invoke(verb, "--ckpt-root", bundle.path.parent), "no-env")
    for verb in ("demos", "main"):
        only_error(invoke(verb, "--task", file, "--preset", SMALL_PRESET), "no-env")
    playing = ("--overrides", "sft.eval_interval=2,sft.save_interval=2")
    only_error(invoke("sft", *settings[:4], "--preset", SMALL_PRESET, *playing), "no-env")
    assert succeed(invoke("doctor", "--task", file, "--json"))
    refused = invoke("doctor", "eval", "--ckpt-root", bundle.path.parent, "--task", "stack2", "--json")
    assert "task-mismatch" in [problem["code"] for problem in json.loads(refused.stdout)["problems"]]


def test_foreign_weights_of_another_robot(invoke, small_checkpoints, tmp_path):
    """`bundle make` takes the task, and `--assume all` what it says of the training."""
    dataset = FRANKA.write(tmp_path / "data")
    file = begin(invoke, dataset)
    done = succeed(invoke("norm_stats", "--dataset", dataset, "--task", file, "--preset", SMALL_PRESET))
    source = tmp_path / "loose" / "7"
    source.mkdir(parents=True)
    shutil.copy(small_checkpoints / "6" / "model.safetensors", source)
    shutil.copy(done.stdout.split()[-1], source)
    settings = ("--task", file, "--preset", SMALL_PRESET, "--assume", "all", "--name", "franka")
    succeed(invoke("bundle", "make", source, *settings, "--output", tmp_path / "out"))
    bundle = read_bundle(tmp_path / "out" / "bundles" / "franka" / "7")
    policy = ServedPolicy(bundle, serving_config(bundle))
    actions = policy.infer([policy.spec.parse(FRANKA.observation(), (0, 0, 0))])
    assert actions.shape == (1, policy.config.policy.action_chunk, FRANKA.action)


def test_several_datasets_are_compared_in_the_features_of_the_task(invoke, tmp_path):
    one, other = FRANKA.write(tmp_path / "one" / "data"), FRANKA.write(tmp_path / "other" / "data")
    file = begin(invoke, one)
    settings = ("--task", file, "--preset", SMALL_PRESET, "--steps", "1", "--output", tmp_path / "out")
    succeed(invoke("doctor", "sft", "--dataset", f"{one},{other}", *settings))
    info = other / "meta" / "info.json"
    info.write_text(info.read_text().replace('"observation.state"', '"observation.other"', 1))
    refused = invoke("doctor", "sft", "--dataset", f"{one},{other}", *settings)
    assert refused.exit_code == 2
    assert "no-feature" in refused.stdout


def test_norm_stats_of_other_rows_are_refused(invoke, tmp_path):
    """Adapted or not, a file is of the same dataset, and here even has the same numbers."""
    dataset = ALOHA.write(tmp_path / "data")
    plain = begin(invoke, dataset)
    adapted = tmp_path / "adapted.yaml"
    adapted.write_text(plain.read_text().replace("# adapt: aloha", "adapt: robots:AS_IT_IS  #"))
    settings = ("--dataset", dataset, "--preset", SMALL_PRESET, "--output", tmp_path / "out")
    files = {
        task: succeed(invoke("norm_stats", *settings, "--task", task)).stdout.split()[-1] for task in (plain, adapted)
    }
    assert len({Path(file).parent for file in files.values()}) == 2
    for task, file in files.items():
        for other in files:
            result = invoke("doctor", "sft", *settings, "--task", other, "--norm-stats", file)
            assert (result.exit_code == 0) == (task is other), result.output
            assert ("adapt=" in result.stdout) == (task is not other)
