"""`rl` under torchrun."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from support import SMALL_RL

from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle


@pytest.mark.slow  # three interpreters
def test_torchrun_trains_one_checkpoint_after_the_other(store, small_checkpoints, tmp_path):
    """Two processes; the second does not wait for the first to evaluate and record before the next training begins."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["rl", "--ckpt-root", str(small_checkpoints), "--ckpt-steps", "4,6", "--output", "out"]
    words += ["--eval-episodes", "1", "--overrides", ",".join([*SMALL_RL, "eval.videos=0"])]
    environment = os.environ | {"MLFLOW_TRACKING_URI": store, "OMP_NUM_THREADS": "1"}
    command = [*launcher, "-m", "mlflow_project.cli", *words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    assert {run.info.status for run in runs} == {"FINISHED"}
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert parent.data.params["cfg/compute/num_processes"] == "2"
    roots = sorted(tmp_path.glob("out/rl/*/checkpoints"))
    assert len(roots) == 2
    bundles = [read_bundle(path) for root in roots for path in find_bundles(root).values()]
    assert len({bundle.digest for bundle in bundles}) == 2
    assert {bundle.lineage["parent"] for bundle in bundles} == {
        read_bundle(small_checkpoints / step).digest for step in ("4", "6")
    }
