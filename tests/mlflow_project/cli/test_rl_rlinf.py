"""`rl --engine rlinf` on the real RLinf and Ray: the runs of the local engine; what `ingest` makes of RLinf's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from rlinf_support import PYTHON
from support import SMALL_RL, rows_of

from mlflow_project.vocabulary import ENDED_TAG, FORECAST_TAG, RESULT_TAG
from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle
from rlinf_isaac.checkpoint.header import read_keys
from rlinf_isaac.engines.rlinf.reinforcement_learning import SAME_AS

pytestmark = pytest.mark.rlinf

SAME = {
    *SAME_AS.values(),
    *(f"gain/{name}" for name in ("success_once", "gained", "lost", "p_value")),
    *("before/success_once", "eval/success_once"),
    *(f"sweep/{name}" for name in ("success_once", "success_low", "success_high", "best_success_once")),
}
"""Metrics that both engines have. The others are of one of them: how it spends its time, what else its PPO says."""

OF_THE_WATCH = {ENDED_TAG, RESULT_TAG, FORECAST_TAG}
"""Tags of what the local engine decides after each iteration; in RLinf its runner has the loop."""

OF_THE_PLAYER = {"rollout.trace.mjs"}
"""What only the local engine writes beside a film: the actions and states of its episode."""


def test_the_runs_are_those_of_the_local_engine(invoke, store, small_checkpoints, tmp_path):
    # RLinf's cluster says how many workers there are: an override would be refused there, a preset's value is none.
    (tmp_path / "one.yaml").write_text("base: tiny\nrl: {workers: 1}\n")
    chosen = [item for item in SMALL_RL if item not in ("rl.workers=1", "rl.eval_interval=2")]
    overrides = ",".join([*chosen, "eval.videos=1", "rl.eval_interval=1"])
    for engine in ("local", "rlinf"):
        options = ("--output", engine, "--engine", engine, "--rlinf-python", PYTHON, "--overrides", overrides)
        options += ("--preset", tmp_path / "one.yaml")
        job = ("--ckpt-root", small_checkpoints, "--ckpt-steps", 6, "--eval-episodes", 3)
        result = invoke("rl", *job, *options)
        assert result.exit_code == 0, result.output

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    found = [client.get_run(run.info.run_id) for run in client.search_runs([experiment])]
    assert {run.info.status for run in found} == {"FINISHED"}
    parents = {run.data.tags["engine"]: run for run in found if "mlflow.parentRunId" not in run.data.tags}
    assert parents["rlinf"].data.params == parents["local"].data.params
    versions = {name for name in parents["rlinf"].data.tags if name.startswith("rlinf.version.")}
    assert parents["rlinf"].data.tags.keys() - versions == parents["local"].data.tags.keys()

    def below(run):
        """Name -> run, of what is nested in it."""
        nested = {
            each.info.run_name: each for each in found if each.data.tags.get("mlflow.parentRunId") == run.info.run_id
        }
        for each in list(nested.values()):
            nested |= below(each)
        return nested

    def artifacts(run):
        root = Path(run.info.artifact_uri)
        names = (path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
        return {name.partition("+timestamp")[0] for name in names}

    local, rlinf = below(parents["local"]), below(parents["rlinf"])
    assert set(local) == set(rlinf) == {"from-step-6", "step-6", "step-6-rl-1"}
    for name in local:
        assert rlinf[name].data.params == local[name].data.params
        assert rlinf[name].data.tags.keys() == local[name].data.tags.keys() - OF_THE_WATCH
        assert len(rlinf[name].inputs.model_inputs) == len(local[name].inputs.model_inputs)
        assert len(rlinf[name].outputs.model_outputs) == len(local[name].outputs.model_outputs)
    # Evaluated are the same start and two results; of the start every row and frame is the same.
    for name in ("step-6", "step-6-rl-1"):
        assert artifacts(rlinf[name]) == artifacts(local[name]) - OF_THE_PLAYER
        assert rlinf[name].data.metrics.keys() == local[name].data.metrics.keys()
    starts = [
        [row for row in rows_of(tmp_path / engine / "eval") if row["checkpoint_step"] == 6]
        for engine in ("local", "rlinf")
    ]
    assert starts[0] == starts[1] != []

    ours, theirs = rlinf["from-step-6"], local["from-step-6"]
    assert ours.data.metrics.keys() & theirs.data.metrics.keys() == SAME
    assert ours.data.metrics["gain/success_once"] == (
        ours.data.metrics["eval/success_once"] - ours.data.metrics["before/success_once"]
    )
    # RLinf films each round of its environments: the three episodes take two, and one is played again for its film.
    config, videos = (
        "rlinf/config.yaml",
        {f"rlinf/video/{step}/{number}.mp4" for step in (6, 1) for number in (0, 1, 2)},
    )
    assert artifacts(ours) - artifacts(theirs) == {config} | {f"evaluation/{name}" for name in {config, *videos}}
    assert artifacts(theirs) <= artifacts(ours)
    assert "task_type: embodied\n" in (Path(ours.info.artifact_uri) / config).read_text()
    (roots,) = zip(*(tmp_path.glob(f"{engine}/rl/*/checkpoints") for engine in ("rlinf", "local")), strict=True)
    made, expected = (read_bundle(find_bundles(root)[1]) for root in roots)
    assert made.lineage == expected.lineage
    assert made.norm_stats_bytes == expected.norm_stats_bytes
    assert read_keys(made.path) == read_keys(expected.path)
    # Before the first step of the optimiser the policy is the one that played.
    (ratio,) = client.get_metric_history(ours.info.run_id, "train/actor/ratio")
    assert (ratio.step, ratio.value) == (1, pytest.approx(1, abs=0.05))

    # What RLinf logged is what the run has under RLinf's names.
    assert invoke("ingest", "--source", roots[0].parent / "rlinf", "--output", "ingested").exit_code == 0
    (again,) = client.search_runs([experiment], f"tags.`ingest.source` = '{roots[0].parent / 'rlinf'}'")
    assert SAME_AS.keys() <= again.data.metrics.keys()
    for name in again.data.metrics:
        histories = [client.get_metric_history(run.info.run_id, name) for run in (again, ours)]
        points = [{each.step: each.value for each in history} for history in histories]
        if name != "eval/success_once":  # of the evaluation after the training in the one, during it in the other
            assert points[1] == pytest.approx(points[0], rel=1e-6)
