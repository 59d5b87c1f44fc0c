from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support import SHORT_EVALUATION, SMALL_PRESET, kill_when, only_error, shown

from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle
from rlinf_isaac.data.lerobot.dataset_digest import dataset_digest
from rlinf_isaac.ground.digest import bytes_digest


def sft(dataset, *more):
    return ["sft", "--dataset", dataset, "--output", "out", "--preset", SMALL_PRESET, *more]


def digests(directory):
    (root,) = directory.glob("out/sft/*/checkpoints")
    return {step: read_bundle(path).digest for step, path in find_bundles(root).items()}


def test_checkpoints_are_logged_models_with_their_lineage(invoke, store, small_dataset, tmp_path):
    result = invoke(*sft(small_dataset))
    assert result.exit_code == 0, result.output
    bundles = digests(tmp_path)
    assert list(bundles) == [2, 4, 6]
    (bundle,) = (read_bundle(path) for path in tmp_path.glob("out/sft/*/checkpoints/6"))
    used = f"sha256 {bytes_digest(bundle.norm_stats_bytes)} (computed from the dataset {small_dataset})"
    assert used in result.stdout

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

    again = sft(small_dataset, "--overrides", "env.max_episode_steps=16")
    only_error(invoke(*again), "carried-otherwise")
    assert digests(tmp_path) == bundles
    assert invoke(*sft(small_dataset, "--overrides", "env.max_episode_steps=240")).exit_code == 0


def test_killed_and_started_again_ends_with_the_same_bytes(invoke, start, small_dataset, tmp_path):
    """Killed twice: before the first checkpoint, and after it."""
    arguments = [*sft(small_dataset), "--steps", "80", "--save-interval", "40"]
    kill_when(start(*arguments), shown("sft", 24))
    assert not list(tmp_path.glob("out/sft/*/checkpoints/40"))
    kill_when(start(*arguments), shown("sft", 56))
    killed = digests(tmp_path)
    assert 40 in killed
    assert 80 not in killed
    assert invoke(*arguments).exit_code == 0
    resumed = digests(tmp_path)

    shutil.rmtree(tmp_path / "out")
    assert invoke(*arguments).exit_code == 0, "undisturbed"
    assert list(resumed) == [40, 80]
    assert digests(tmp_path) == resumed
    assert killed.items() <= resumed.items()


def test_nothing_is_left_of_a_killed_training_and_its_loader_processes(start, small_dataset, tmp_path):
    """They hold the pipes of the command as well: that these end says that all of them have."""
    before = set(os.listdir("/dev/shm"))
    more = ("--steps", "120", "--save-interval", "20", "--overrides", "sft.loader_workers=2")
    kill_when(start(*sft(small_dataset), *more), shown("sft", 24))
    assert {each for each in os.listdir("/dev/shm") if each.startswith("torch_")} <= before
    assert 20 in digests(tmp_path)


@pytest.fixture
def two_datasets(small_dataset, tmp_path):
    """A copy of the dataset, which says something else of where it came from, beside it."""
    other = shutil.copytree(small_dataset, tmp_path / "other")
    path = other / "meta/provenance.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"copied": True}))
    return f"{small_dataset},{other}"


def test_a_mixture_is_trained_on_and_each_dataset_is_in_the_lineage(invoke, store, two_datasets, tmp_path):
    result = invoke(*sft(two_datasets, "--overrides", "sft.mix=[2,1]"))
    assert result.exit_code == 0, result.output
    assert list(digests(tmp_path)) == [2, 4, 6]
    (path,) = tmp_path.glob("out/sft/*/checkpoints/6")
    bundle = read_bundle(path)
    parts = [dataset_digest(Path(root)) for root in two_datasets.split(",")]
    assert bundle.config["mixture"] == {"datasets": parts, "weights": [2.0, 1.0]}

    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    tags = {name: value for name, value in run.data.tags.items() if name.startswith("lineage.dataset")}
    numbered = {f"lineage.dataset.{number}.sha256": part for number, part in enumerate(parts, start=1)}
    assert tags == {"lineage.dataset.sha256": bundle.lineage["dataset"]} | numbered
    inputs = client.get_run(run.info.run_id).inputs.dataset_inputs
    assert sorted(each.dataset.digest for each in inputs) == sorted(part[:32] for part in parts)

    shown = invoke("lineage", path)
    assert shown.exit_code == 0, shown.output
    assert "mixture of 2 datasets" in shown.stdout
    assert "computed again: the same" in shown.stdout
    (tmp_path / "other/meta/provenance.json").write_text("{}")
    shown = invoke("lineage", path)
    assert shown.exit_code == 2
    assert "dataset-changed" in shown.stdout
    assert "computed again" not in shown.stdout


def test_datasets_that_do_not_fit_are_refused_at_once(invoke, two_datasets, tmp_path):
    path = tmp_path / "other/meta/info.json"
    info = json.loads(path.read_text())
    info["features"]["action"]["names"].reverse()
    path.write_text(json.dumps(info))
    before = sorted(tmp_path.rglob("*"))
    result = invoke(*sft(two_datasets, "--norm-stats", "some.json", "--overrides", "sft.mix=[1,2,3]"))
    assert result.exit_code == 2
    for code in ("mix-dims", "mix-count", "mix-norm-stats"):
        assert f"error {code} " in " ".join(result.stderr.split()), result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    only_error(invoke(*sft(two_datasets.split(",")[0], "--overrides", "sft.mix=[1]")), "mix-count")


def test_a_resumed_run_has_the_whole_curve(invoke, start, store, small_dataset, tmp_path):
    arguments = [*sft(small_dataset), "--steps", "60", "--save-interval", "15"]
    kill_when(start(*arguments), shown("sft", 36))
    assert invoke(*arguments).exit_code == 0
    client = MlflowClient(store)
    runs = client.search_runs(
        [client.get_experiment_by_name("rlinf-isaac").experiment_id], order_by=["start_time DESC"]
    )
    assert runs[0].info.status == "FINISHED"
    steps = [metric.step for metric in client.get_metric_history(runs[0].info.run_id, "train/loss")]
    assert steps == list(range(2, 61, 2))
    assert sorted(output.step for output in runs[0].outputs.model_outputs) == [15, 30, 45, 60]


def test_an_average_is_paired_with_the_weights_that_it_is_of(invoke, store, small_dataset, tmp_path):
    averaged = "sft.ema_decay=0.9,sft.evaluate_raw=true"
    trained = invoke(*sft(small_dataset, "--overrides", averaged))
    assert trained.exit_code == 0, trained.output
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name("rlinf-isaac").experiment_id
    models = client.search_logged_models([experiment])
    assert sorted(model.name for model in models) == sorted(
        f"pi0-tiny{raw}-step-{step}" for raw in ("", "-raw") for step in (2, 4, 6)
    )
    sweeps = []
    for line in re.findall(r"rlinf-isaac (eval --ckpt-root \S+)", trained.stdout):
        more = ("--ckpt-steps", 6, "--episodes", 2, "--output", "out", "--overrides", SHORT_EVALUATION)
        result = invoke(*line.split(), *more)
        assert result.exit_code == 0, result.output
        runs = client.search_runs([experiment], "tags.rlinf_isaac.verb = 'eval'")
        runs = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        sweeps += [run.info.run_id for run in runs if run.info.run_id not in sweeps]
    assert len(sweeps) == 2
    compared = invoke("compare", *sweeps, "--output", "out")
    assert compared.exit_code == 0, compared.output
    assert "Not paired" not in compared.stdout
    (run,) = client.search_runs([experiment], "tags.rlinf_isaac.verb = 'compare'")
    table = client.load_table(experiment, "paired_episodes.json", [run.info.run_id])
    assert list(table["seed"]) == [5000, 5001]
    assert len(table.columns) == 1 + 2 + 2


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
        (["--overrides", "sft.trainable=lora"], "frozen-random"),
        (["--overrides", "sft.train_vision=false"], "frozen-random"),
        (["--overrides", "sft.decay_steps=50"], "decay-warmup"),
        (["--overrides", "sft.lora.vlm_rank=8"], "sft.lora.vlm_rank only with sft.trainable=lora"),
        (["--overrides", "sft.evaluate_raw=true"], "sft.evaluate_raw only with sft.ema_decay above 0"),
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
    assert invoke("norm_stats", "--dataset", small_dataset, "--output", "out", "--preset", SMALL_PRESET).exit_code == 0
    (stats,) = tmp_path.glob("out/norm_stats/*/norm_stats.json")
    result = invoke(*sft(small_dataset, "--norm-stats", stats))
    assert result.exit_code == 0, result.output
    assert f"sha256 {bytes_digest(stats.read_bytes())} (given, {stats})" in result.stdout

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
    assert invoke("norm_stats", "--dataset", small_dataset, "--output", "out", "--preset", SMALL_PRESET).exit_code == 0
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
