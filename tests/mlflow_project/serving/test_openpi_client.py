"""The real openpi-client, in a venv of its own (it needs numpy < 2), against our server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from serving_support import Running, expected, observation

from mlflow_project.serving.codec import pack

pytestmark = pytest.mark.slow

# openpi-client 0.1.2 imports typing_extensions and does not declare it.
PACKAGES = ("openpi-client==0.1.2", "numpy<2", "typing_extensions")

CLIENT = """
import json, sys
import numpy as np
from openpi_client import msgpack_numpy
from openpi_client.action_chunk_broker import ActionChunkBroker
from openpi_client.websocket_client_policy import WebsocketClientPolicy

port, path = int(sys.argv[1]), sys.argv[2]
assert np.__version__.startswith("1.")
observations = msgpack_numpy.unpackb(open(path, "rb").read())
policy = WebsocketClientPolicy("127.0.0.1", port, api_key="ignored where none is asked for")
replies = [policy.infer(observation) for observation in observations]
try:
    policy.infer({"prompt": "nothing else"})
except RuntimeError as error:
    refusal = str(error)
again = policy.infer(observations[0])
broker = ActionChunkBroker(policy, action_horizon=8)
steps = [broker.infer(observations[0])["actions"].tolist() for _ in range(8)]
print(json.dumps({
    "metadata": policy.get_server_metadata(),
    "actions": [reply["actions"].tolist() for reply in replies],
    "dtypes": sorted({str(reply["actions"].dtype) for reply in replies}),
    "timing": replies[0]["server_timing"],
    "refusal": refusal,
    "again": again["actions"].tolist(),
    "steps": steps,
}))
"""


@pytest.fixture(scope="module")
def openpi(tmp_path_factory) -> Path:
    """Python of a venv that has openpi-client."""
    venv = tmp_path_factory.mktemp("openpi") / "venv"
    subprocess.run([sys.executable, "-m", "venv", venv], check=True)
    command = [venv / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", *PACKAGES]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"pip cannot install {' '.join(PACKAGES)}: {done.stderr.strip().splitlines()[-1]}")
    return venv / "bin" / "python"


def test_openpi_client_gets_the_same_bits(openpi, policy_server: Running, policy, tmp_path):
    sent = [observation(index) for index in range(4)]
    (tmp_path / "observations").write_bytes(pack(sent))
    command = [openpi, "-c", CLIENT, str(policy_server.port), str(tmp_path / "observations")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={})
    assert done.returncode == 0, done.stderr
    got = json.loads(done.stdout)
    wanted = np.stack([expected(policy, each) for each in sent])
    assert got["dtypes"] == ["float32"]
    np.testing.assert_array_equal(np.array(got["actions"], np.float32), wanted)  # JSON carries every float32 exactly
    np.testing.assert_array_equal(np.array(got["again"], np.float32), wanted[0])
    np.testing.assert_array_equal(np.array(got["steps"], np.float32), wanted[0])
    assert got["metadata"] == policy.metadata()
    assert got["timing"]["infer_ms"] > 0
    assert "observation-missing" in got["refusal"]
