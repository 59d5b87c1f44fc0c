"""The pyfunc model: the same actions as the server's and the evaluation's policy, and never unverified bytes."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest
from serving_support import expected, observation

from mlflow_project.serving.log_model import INPUTS
from rlinf_isaac.errors import BundleError, ObservationError

CHAMPION = "models:/stack-cube@champion"


@pytest.fixture
def champion(registry):
    mlflow.set_tracking_uri(registry)
    return mlflow.pyfunc.load_model(CHAMPION)


def stacked(sent: list[dict]) -> tuple[dict[str, np.ndarray], dict]:
    """Several observations as the model takes them, and their noise as its parameter."""
    inputs = {name: np.stack([each[name] for each in sent]) for name in INPUTS}
    return inputs, {"noise_key": [part for each in sent for part in each["noise_key"]]}


def test_predict_gives_the_same_bits(champion, policy):
    sent = [observation(index) for index in range(3)]
    inputs, params = stacked(sent)
    actions = champion.predict(inputs, params=params)
    assert actions.dtype == np.float32
    np.testing.assert_array_equal(actions, np.stack([expected(policy, each) for each in sent]))
    alone, _ = stacked(sent[1:2])
    np.testing.assert_array_equal(champion.predict(alone, params={"noise_key": sent[1]["noise_key"]}), actions[1:2])


def test_one_noise_key_is_for_all_rows_and_is_zero_unless_given(champion, policy):
    inputs, _ = stacked([observation(index) for index in range(2)])
    without = [expected(policy, observation(index) | {"noise_key": [0, 0, 0]}) for index in range(2)]
    np.testing.assert_array_equal(champion.predict(inputs), np.stack(without))


def test_the_signature(champion, policy):
    signature = champion.metadata.signature
    assert [spec.name for spec in signature.inputs.inputs] == list(INPUTS)
    assert signature.inputs.inputs[2].shape == (-1, len(policy.spec.state_names))
    assert signature.outputs.inputs[0].shape == (-1, policy.config.policy.action_chunk, 7)
    example = champion.input_example
    assert champion.predict(example).shape == (1, policy.config.policy.action_chunk, 7)


def test_the_scoring_server_gives_the_same_actions(champion, policy):
    """What `mlflow models serve` runs. JSON carries a float32 exactly, as the float64 that it equals."""
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    inputs, params = stacked([observation(0), observation(1)])
    body = {"inputs": {name: values.tolist() for name, values in inputs.items()}, "params": params}
    with TestClient(init(champion)) as client:
        answer = client.post("/invocations", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    actions = np.array(answer.json()["predictions"], np.float32)
    np.testing.assert_array_equal(actions, np.stack([expected(policy, observation(index)) for index in range(2)]))


def test_refusals(champion):
    inputs, _ = stacked([observation(0)])
    with pytest.raises(ObservationError, match="noise_key has 4 entries"):
        champion.predict(inputs, params={"noise_key": [1, 2, 3, 4]})
    with pytest.raises(ObservationError, match="observation-prompt"):
        champion.predict(inputs | {"prompt": np.array(["Dance."])})


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "isaaclab_stack_cube/norm_stats.json"])
def test_damaged_bytes_are_not_loaded(registry, name):
    (stored,) = Path(registry.removeprefix("sqlite:///")).parent.rglob("artifacts/6")
    file = stored / name
    whole = file.read_bytes()
    mlflow.set_tracking_uri(registry)
    try:
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BundleError):
            mlflow.pyfunc.load_model(CHAMPION)
    finally:
        file.write_bytes(whole)
