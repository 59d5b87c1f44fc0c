"""`sft --engine rlinf` on the real RLinf and Ray: the run of the local engine; what `ingest` makes of RLinf's files."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from rlinf_support import PYTHON
from support import SMALL_PRESET, small_config

from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle
from rlinf_isaac.checkpoint.header import read_keys
from rlinf_isaac.engines.rlinf import RlinfEngine, Runtime
from rlinf_isaac.ground.events import CheckpointSaved
from rlinf_isaac.jobs.sft import plan

pytestmark = pytest.mark.rlinf

SAME = {
    *("train/loss", "train/grad_norm", "train/learning_rate"),
    *("time/steps_per_second", "time/samples_per_second"),
}
"""Metrics of the local engine that come from RLinf, too."""


@pytest.fixture
def curve(store) -> Callable[[Run, str], dict[int, float]]:
    """A metric of a run, step -> value."""
    client = MlflowClient(store)
    return lambda run, name: {each.step: each.value for each in client.get_metric_history(run.info.run_id, name)}


def test_the_run_is_that_of_the_local_engine(invoke, store, content, curve, small_dataset, tmp_path):
    for name in ("local", "rlinf"):
        options = ("--output", name, "--engine", name, "--rlinf-python", PYTHON, "--preset", str(SMALL_PRESET))
        result = invoke("sft", "--dataset", small_dataset, *options)
        assert result.exit_code == 0, result.output
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    runs = {run.data.tags["engine"]: run for run in client.search_runs([experiment])}
    local, rlinf = runs["local"], runs["rlinf"]

    assert rlinf.data.params == local.data.params
    versions = {name for name in rlinf.data.tags if name.startswith("rlinf.version.")}
    assert rlinf.data.tags.keys() - versions == local.data.tags.keys()
    lineage = [name for name in local.data.tags if name.startswith("lineage.")]
    assert {name: rlinf.data.tags[name] for name in lineage} == {name: local.data.tags[name] for name in lineage}

    assert local.data.metrics.keys() == SAME | {"time/data_wait"}
    assert rlinf.data.metrics.keys() >= SAME
    for name in SAME:
        assert list(curve(rlinf, name)) == list(curve(local, name)) == [2, 4, 6]
    # The same weights, batches, noise and flow times; RLinf's learning rate starts a step later.
    assert curve(rlinf, "train/loss")[2] == pytest.approx(curve(local, "train/loss")[2], rel=1e-2)

    ours, theirs = (content(store).runs[run.info.run_name] for run in (rlinf, local))
    assert ours["datasets"] == theirs["datasets"] != []
    assert ours["model outputs"] == theirs["model outputs"] != []
    assert {name for name, _ in ours["artifacts"]} == {name for name, _ in theirs["artifacts"]} | {"rlinf/config.yaml"}
    (roots,) = zip(*(tmp_path.glob(f"{name}/sft/*/checkpoints") for name in ("rlinf", "local")), strict=True)
    for ours, theirs in zip(*(find_bundles(root).values() for root in roots), strict=True):
        assert read_keys(ours) == read_keys(theirs)
        assert read_bundle(ours).norm_stats_bytes == read_bundle(theirs).norm_stats_bytes
        assert read_bundle(ours).lineage == read_bundle(theirs).lineage
        assert read_bundle(ours).config["engine"]["rlinf"].startswith("0.3.")

    # One that was killed and resumed ends with the same bytes.
    engine = RlinfEngine(Runtime(python=PYTHON))
    disturbed = plan(small_config(), small_dataset, None, tmp_path / "disturbed", "-rlinf")
    for event in engine.sft(disturbed):
        if isinstance(event, CheckpointSaved):
            break  # the generator is closed: everything is killed
    resumed = [event for event in engine.sft(disturbed) if isinstance(event, CheckpointSaved)]
    for event, (step, path) in zip(resumed, find_bundles(roots[0]).items(), strict=True):
        assert event.step == step
        assert (event.path / "model.safetensors").read_bytes() == (path / "model.safetensors").read_bytes()

    # RLinf logged every step, of which the run has the means.
    results = roots[0].parent / "rlinf"
    assert invoke("ingest", "--source", results, "--output", "ingested").exit_code == 0
    (found,) = client.search_runs([experiment], "tags.`ingest.source` != ''", order_by=["start_time"], max_results=1)
    every = curve(found, "train/loss")
    assert list(every) == [1, 2, 3, 4, 5, 6]
    means = {step: np.mean([every[step - 1], every[step]]) for step in (2, 4, 6)}
    assert curve(rlinf, "train/loss") == pytest.approx(means, rel=1e-6)
