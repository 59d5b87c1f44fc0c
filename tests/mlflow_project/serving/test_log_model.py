"""The pyfunc model: the same actions as the server's and the evaluation's policy, and never unverified bytes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from serving_support import expected, observation

from mlflow_project.serving import log_model
from rlinf_isaac.ground.errors import BundleError

# What models that are registered already are called with.
IMAGES = ("observation/image", "observation/wrist_image")
INPUTS = (*IMAGES, "observation/state", "prompt")
CHAMPION = "models:/stack-cube@champion"
JSON = {"Content-Type": "application/json"}
GREY = np.full((1, 8, 8, 3), 0.5)


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


def test_images_are_taken_as_the_server_takes_them(champion, policy):
    inputs, params = stacked([observation(0)])
    wanted = expected(policy, observation(0))[None]
    for name in IMAGES:
        floats = as_floats(inputs[name])
        rows = np.empty(1, object)
        rows[0] = inputs[name][0]
        for images in (floats, floats.astype(np.float32), inputs[name].transpose(0, 3, 1, 2), rows):
            np.testing.assert_array_equal(champion.predict(inputs | {name: images}, params=params), wanted)
    untouched, _ = stacked([observation(0)])
    np.testing.assert_array_equal(inputs["observation/image"], untouched["observation/image"])


def as_floats(images: np.ndarray) -> np.ndarray:
    """In [0, 1]; scaled by 255 and cut off they are the same integers."""
    return np.minimum(1, (images + 0.25) / 255)


def body(inputs: dict, params: dict | None = None) -> str:
    lists = {name: values.tolist() if isinstance(values, np.ndarray) else values for name, values in inputs.items()}
    return json.dumps({"inputs": lists} | ({"params": params} if params else {}))


@pytest.fixture
def post(champion) -> Iterator[Callable[..., tuple[int, dict]]]:
    """Asks what `mlflow models serve` runs; status and answer."""
    from fastapi.testclient import TestClient
    from mlflow.pyfunc.scoring_server import init

    with TestClient(init(champion)) as client:

        def post(inputs, params=None) -> tuple[int, dict]:
            answer = client.post("/invocations", content=body(inputs, params), headers=JSON)
            return answer.status_code, answer.json()

        yield post


def test_the_scoring_server_gives_the_same_actions(post, policy):
    """JSON carries a float32 exactly, as the float64 that it equals."""
    sent = [observation(0), observation(1)]
    inputs, params = stacked(sent)
    wanted = np.stack([expected(policy, each) for each in sent])
    image = inputs["observation/image"]
    floats = {name: as_floats(inputs[name]) for name in IMAGES}
    mixed = {"observation/image": [as_floats(image[0]).tolist(), image[1].tolist()]}
    other_size = {"observation/image": [np.full((100, 64, 3), 200).tolist(), image[1].tolist()]}
    for images, rows in (({}, [0, 1]), (floats, [0, 1]), (mixed, [0, 1]), (other_size, [1])):
        status, answer = post(inputs | images, params)
        assert status == 200, answer
        np.testing.assert_array_equal(np.array(answer["predictions"], np.float32)[rows], wanted[rows])


REFUSED = [
    ({"observation/image": GREY * 4}, "observation-image"),
    ({"observation/image": GREY - 1}, "observation-image"),
    ({"observation/image": GREY * np.nan}, "observation-image"),
    ({"observation/image": np.full((1, 8, 8, 3), 256)}, "observation-image"),
    ({"observation/image": np.full((1, 8, 8, 3), -1)}, "observation-image"),
    ({"observation/image": np.ones((1, 8, 8, 3), int)}, "observation-image"),
    ({"observation/image": np.ones((1, 8, 8, 3), bool)}, "observation-image"),
    ({"observation/image": np.full((1, 8, 8, 3), "255")}, "observation-image"),
    ({"observation/image": np.full((1, 8, 8, 4), 200)}, "observation-image"),
    ({"observation/image": np.full((1, 1, 4096, 3), 200)}, "observation-image"),
    ({"observation/image": [[[[200, 200, 200], [200]]]]}, "observation-image"),
    ({"observation/image": [None]}, "observation-image"),
    ({"observation/image": 200}, "observation-rows"),
    ({"observation/image": np.full((2, 8, 8, 3), 200)}, "observation-rows"),
    ({"observation/image": []}, "observation-rows"),
    ({"observation/state": np.zeros((2, 23))}, "observation-rows"),
    ({"prompt": ["Stack the red block on the blue block."] * 3}, "observation-rows"),
    ({"prompt": ["Dance."]}, "observation-prompt"),
    ({"observation/state": np.full((1, 23), np.nan)}, "observation-state"),
    ({"observation/state": [["a"] * 23]}, "could not convert string to float"),  # MLflow's own check
]


def test_the_scoring_server_refuses_with_400(post):
    inputs, _ = stacked([observation(0)])
    for change, code in REFUSED:
        status, answer = post(inputs | change)
        assert status == 400, change
        assert code in answer["message"], change
        assert "Traceback" not in json.dumps(answer)


def test_refusals(champion):
    inputs, _ = stacked([observation(0)])
    with pytest.raises(MlflowException, match="noise_key has 4 entries"):
        champion.predict(inputs, params={"noise_key": [1, 2, 3, 4]})
    for change, code in (
        ({"prompt": np.array(["Dance."])}, "observation-prompt"),
        ({"observation/image": inputs["observation/image"].astype(int)}, "observation-image"),
        ({"observation/image": inputs["observation/image"][..., :2]}, "observation-image"),
        ({"observation/image": inputs["observation/image"][0]}, "observation-rows"),
    ):
        with pytest.raises(MlflowException, match=code):
            champion.predict(inputs | change)


def test_a_model_that_was_logged_with_images_of_uint8(bundle, policy, tmp_path):
    """Its stored code calls `requests_of`, and imports errors by their name of old; MLflow casts what JSON has."""
    from mlflow.models import ModelSignature
    from mlflow.pyfunc.scoring_server import infer_and_parse_data
    from mlflow.types import Schema, TensorSpec

    source = Path(log_model.__file__).with_name("pyfunc_model.py").read_text()
    code = tmp_path / "pyfunc_model.py"
    for name, name_of_old in (("read_requests", "requests_of"), ("rlinf_isaac.ground.errors", "rlinf_isaac.errors")):
        assert name in source
        source = source.replace(name, name_of_old)
    code.write_text(source)
    new = log_model.signature(policy.config, policy.spec)
    images = [TensorSpec(np.dtype(np.uint8), (-1, -1, -1, 3), name) for name in IMAGES]
    mlflow.pyfunc.save_model(
        tmp_path / "model",
        python_model=str(code),
        artifacts={"bundle": str(bundle.path)},
        signature=ModelSignature(Schema([*images, *new.inputs.inputs[2:]]), new.outputs, new.params),
        model_config={"checkpoint": bundle.digest, "device": "cpu", "any_prompt": False, "assumed": {}},
        pip_requirements=[],
    )
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    inputs, params = stacked([observation(0)])
    np.testing.assert_array_equal(model.predict(inputs, params=params), expected(policy, observation(0))[None])
    cast = infer_and_parse_data(json.loads(body(inputs | {"observation/image": GREY})), model.metadata.signature.inputs)
    assert cast["observation/image"].dtype == np.uint8
    with pytest.raises(MlflowException, match="has no value above 1"):
        model.predict(cast)


@pytest.mark.slow
def test_mlflow_models_serve(registry, policy):
    """The real command, and its HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", CHAMPION, "--env-manager", "local"]
    inputs, params = stacked([observation(0)])
    floats = {name: as_floats(inputs[name]) for name in IMAGES}

    def ask(inputs: dict, params: dict | None = None):
        return urlopen(Request(f"http://127.0.0.1:{port}/invocations", body(inputs, params).encode(), JSON))

    here = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"  # MLflow looks for uvicorn there
    environment = os.environ | {"MLFLOW_TRACKING_URI": registry, "PATH": here}
    with subprocess.Popen(
        [*command, "-p", str(port)], env=environment, stderr=subprocess.PIPE, text=True, process_group=0
    ) as server:
        try:
            assert any("Uvicorn running on" in line for line in server.stderr)
            for images in ({}, floats):
                with ask(inputs | images, params) as answer:
                    actions = np.array(json.load(answer)["predictions"], np.float32)
                np.testing.assert_array_equal(actions, expected(policy, observation(0))[None])
            for change in ({"observation/image": GREY * 4}, {"observation/state": np.zeros((2, 23))}):
                with pytest.raises(HTTPError) as refused:
                    ask(inputs | change)
                assert refused.value.code == 400
                assert re.search("observation-(image|rows)", refused.value.read().decode())
        finally:
            os.killpg(server.pid, signal.SIGKILL)


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
