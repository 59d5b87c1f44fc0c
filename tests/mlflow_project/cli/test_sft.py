from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from mlflow import MlflowClient
from support import SMALL, kill_when, only_error

from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle

OVERRIDES = ",".join(SMALL)


def sft(dataset, *more):
    return ["sft", "--dataset", dataset, "--output", "out", "--overrides", OVERRIDES, *more]


def digests(directory):
    (root,) = directory.glob("out/sft/*/checkpoints")
    return {step: read_bundle(path).digest for step, path in find_bundles(root).items()}


def test_checkpoints_are_logged_models_with_their_lineage(invoke, store, small_dataset, tmp_path):
    result = invoke(*sft(small_dataset))
    assert result.exit_code == 0, result.output
    bundles = digests(tmp_path)
    assert list(bundles) == [2, 4, 6]

    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    (run,) = client.search_runs([experiment])
    assert run.info.status == "FINISHED"
    assert {"cfg/sft/lr", "cfg/model/pi05", "cfg/policy/state_layout"} <= set(run.data.params)
    assert {"lineage.dataset.sha256", "lineage.norm_stats.sha256", "lineage.config.sha256"} <= set(run.data.tags)
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "train/loss")] == [2, 4, 6]
    models = client.search_logged_models([experiment])
    assert {model.tags["checkpoint.sha256"] for model in models} == set(bundles.values())
    assert sorted(output.step for output in run.outputs.model_outputs) == [2, 4, 6]
    files = {file.path for file in client.list_artifacts(run.info.run_id, "checkpoints/6")}
    assert {"checkpoints/6/model.safetensors", "checkpoints/6/bundle.json"} <= files


@pytest.mark.parametrize("moment", ["sft          60/", "sft          180/"])
def test_killed_and_started_again_ends_with_the_same_bytes(start, small_dataset, tmp_path, moment):
    long = ["--steps", "300", "--save-interval", "100"]
    arguments = [*sft(small_dataset), *long]
    kill_when(start(*arguments), moment)
    killed = digests(tmp_path) if list(tmp_path.glob("out/sft/*/checkpoints")) else {}
    assert 300 not in killed
    process = start(*arguments)
    assert process.wait() == 0, process.stderr.read()
    resumed = digests(tmp_path)

    shutil.rmtree(tmp_path / "out")
    process = start(*arguments)
    assert process.wait() == 0, process.stderr.read()
    assert list(resumed) == [100, 200, 300]
    assert digests(tmp_path) == resumed
    assert killed.items() <= resumed.items()


def test_a_resumed_run_has_the_whole_curve(start, store, small_dataset, tmp_path):
    arguments = [*sft(small_dataset), "--steps", "100", "--save-interval", "25"]
    kill_when(start(*arguments), "sft          70/")
    process = start(*arguments)
    assert process.wait() == 0, process.stderr.read()
    client = MlflowClient(store)
    runs = client.search_runs(
        [client.get_experiment_by_name("rlinf-isaac").experiment_id], order_by=["start_time DESC"]
    )
    assert runs[0].info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(runs[0].info.run_id, "train/loss")]
    assert steps == list(range(2, 101, 2))
    assert sorted(output.step for output in runs[0].outputs.model_outputs) == [25, 50, 75, 100]


def test_finished_training_is_not_repeated(invoke, small_dataset, tmp_path):
    assert invoke(*sft(small_dataset)).exit_code == 0
    written = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/sft/*/checkpoints/*/*")}
    assert invoke(*sft(small_dataset)).exit_code == 0
    assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/sft/*/checkpoints/*/*")} == written


def test_another_seed_is_another_training(invoke, small_dataset, tmp_path):
    for seed in (0, 1):
        assert invoke(*sft(small_dataset, "--seed", seed)).exit_code == 0
    assert len(list(tmp_path.glob("out/sft/*"))) == 2


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (["--lr", "nan"], "sft.lr is nan"),
        (["--lr", "fast"], "bad-value"),
        (["--preset", "tinny"], "unknown-preset"),
        (["--overrides", "sft.larning_rate=1"], "unknown-key"),
        (["--overrides", "policy.action_chunk=20"], "chunk-horizon"),
        (["--overrides", "env.max_episode_steps=100"], "use 96 or 104"),
        (["--device", "gpu"], "compute.device is gpu"),
        (["--norm-stats", "missing.json"], "norm-stats-missing"),
    ],
)
def test_bad_input_is_one_clear_error(invoke, small_dataset, tmp_path, more, code):
    only_error(invoke("sft", "--dataset", small_dataset, *more), code)
    assert list(tmp_path.glob("result*")) == []


def test_bad_input_is_found_before_torch_is_imported(small_dataset):
    code = (
        "import sys\nfrom mlflow_project.cli import cli\n"
        "try: cli(sys.argv[1:])\n"
        "except SystemExit as end: print(end.code, [n for n in ('torch', 'mujoco', 'mlflow') if n in sys.modules])"
    )
    command = [sys.executable, "-c", code, "sft", "--dataset", str(small_dataset), "--lr", "nan"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "2 []"


def test_norm_stats_of_other_data_are_refused(invoke, small_dataset, tmp_path):
    assert invoke("norm_stats", "--dataset", small_dataset, "--output", "out", "--overrides", OVERRIDES).exit_code == 0
    (stats,) = tmp_path.glob("out/norm_stats/*/norm_stats.json")
    assert invoke(*sft(small_dataset, "--norm-stats", stats)).exit_code == 0

    provenance = json.loads((stats.parent / "provenance.json").read_text())
    (stats.parent / "provenance.json").write_text(json.dumps(provenance | {"dataset": "0" * 64}))
    only_error(invoke(*sft(small_dataset, "--norm-stats", stats)), "norm-stats-mismatch")
    (stats.parent / "provenance.json").unlink()
    assert invoke(*sft(small_dataset, "--norm-stats", stats)).exit_code == 0, "the values vouch for themselves"
    values = json.loads(stats.read_text())
    actions = values["norm_stats"]["actions"]
    actions["mean"][0] += 0.2 * actions["std"][0]
    stats.write_text(json.dumps(values))
    only_error(invoke(*sft(small_dataset, "--norm-stats", stats)), "norm-stats-provenance")


def test_mis_keyed_norm_stats_are_refused(invoke, small_dataset, tmp_path):
    assert invoke("norm_stats", "--dataset", small_dataset, "--output", "out", "--overrides", OVERRIDES).exit_code == 0
    (stats,) = tmp_path.glob("out/norm_stats/*/norm_stats.json")
    values = json.loads(stats.read_text())["norm_stats"]
    stats.write_text(json.dumps({"norm_stats": {"observation.state": values["state"], "action": values["actions"]}}))
    result = invoke(*sft(small_dataset, "--norm-stats", stats))
    assert result.exit_code == 2
    assert "observation.state" in result.stderr


def test_divergence_fails_the_run_and_keeps_the_checkpoints(invoke, store, small_dataset, tmp_path):
    result = invoke(*sft(small_dataset, "--lr", "1e30", "--steps", "40", "--save-interval", "1"))
    assert result.exit_code == 1
    assert "TrainingDiverged" in result.stderr
    assert all(read_bundle(path) for path in tmp_path.glob("out/sft/*/checkpoints/*"))
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    assert run.info.status == "FAILED"
    assert "TrainingDiverged" in run.data.tags["failure.reason"]
