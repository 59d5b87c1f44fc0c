"""`sft` under torchrun, whose launchers stand for machines."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file
from support import SMALL_PRESET

from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle


def sft(dataset, *more):
    return ["sft", "--dataset", dataset, "--output", "out", "--preset", SMALL_PRESET, *more]


def digests(directory):
    (root,) = directory.glob("out/sft/*/checkpoints")
    return {step: read_bundle(path).digest for step, path in find_bundles(root).items()}


@pytest.mark.slow  # three interpreters
def test_torchrun_starts_it_on_several_machines(invoke, store, small_dataset, tmp_path):
    """Two processes of one machine, which is what it starts on each of several; one goes on alone."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [str(word) for word in sft(small_dataset, "--steps", "4", "--save-interval", "2")]
    environment = os.environ | {"MLFLOW_TRACKING_URI": store, "OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "mlflow_project.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("checkpoints  ") == 1
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params["cfg/compute/num_processes"] == "2"
    assert len(run.outputs.model_outputs) == 2
    made = digests(tmp_path)
    assert list(made) == [2, 4]
    # What two made, one takes over.
    assert invoke(*words).exit_code == 0
    assert digests(tmp_path) == made


@pytest.mark.slow
def test_two_machines_have_all_the_shards_each(invoke, store, small_dataset, tmp_path):
    """Two launchers stand for two machines, with two processes each."""
    options = ("--steps", "4", "--save-interval", "2", "--batch-size", "4")
    words = [str(word) for word in sft(small_dataset, *options, "--overrides", "compute.sharding=shard")]
    environment = os.environ | {"MLFLOW_TRACKING_URI": store, "OMP_NUM_THREADS": "1"}
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    place = ("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "two")
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2", *place]
    command = [*launcher, "-m", "mlflow_project.cli", *words]
    machines = [
        subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for _ in range(2)
    ]
    said = [machine.communicate()[0].decode() for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], said
    made = {path.name: load_file(path / "model.safetensors") for path in tmp_path.glob("**/checkpoints/*")}
    assert set(made) == {"2", "4"}
    words = sft(small_dataset, *options, "--output", "alone")
    assert invoke(*words).exit_code == 0
    for path in tmp_path.glob("alone/**/checkpoints/*"):
        for name, each in load_file(path / "model.safetensors").items():
            torch.testing.assert_close(made[path.name][name], each, rtol=0, atol=1e-4)
