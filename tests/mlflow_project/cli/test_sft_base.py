"""`sft --base`: what a fine-tuning takes from a checkpoint, and what its runs and checkpoints say of it."""

from __future__ import annotations

import json
import shutil

import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from support import SMALL_PRESET, only_error

from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle
from rlinf_isaac.ground.digest import bytes_digest, file_digest, json_digest

ONE_STEP = ("--steps", "1", "--save-interval", "1", "--lr", "1e-60")


def sft(dataset, *more):
    return ["sft", "--dataset", dataset, "--output", "out", *ONE_STEP, *more]


def trained(directory):
    (root,) = directory.glob("out/sft/*/checkpoints")
    return read_bundle(find_bundles(root)[1])


@pytest.fixture
def base(small_checkpoints):
    """A checkpoint of ours."""
    return read_bundle(small_checkpoints / "6")


@pytest.fixture
def foreign(base, tmp_path):
    """The same weights as OpenPI's converter leaves them, with the statistics of two robots."""
    root = tmp_path / "models" / "pi0_base"
    root.mkdir(parents=True)
    shutil.copyfile(base.path / "model.safetensors", root / "model.safetensors")
    for robot in ("droid", "trossen"):
        place = root / "assets" / robot
        place.mkdir(parents=True)
        statistics = json.loads(base.norm_stats_bytes)
        statistics["norm_stats"]["state"]["mean"][0] += 0.01 * len(robot)
        (place / "norm_stats.json").write_text(json.dumps(statistics))
    return root


def the_run(store):
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name("rlinf-isaac").experiment_id])
    return run


def test_a_bundle_gives_its_job_and_its_weights(invoke, store, base, small_dataset, tmp_path):
    result = invoke(*sft(small_dataset, "--base", base.path))
    assert result.exit_code == 0, result.output
    made = trained(tmp_path)
    # With a learning rate that is zero in float32, what comes out is what went in.
    assert made.weights_digest == base.weights_digest
    assert made.job["model"] == base.job["model"]
    assert made.lineage["parent"] == base.digest
    assert "parameters from the base, 0 new" in result.stdout
    run = the_run(store)
    assert run.info.run_name.endswith(f" (from {run.data.tags['base.name']})")
    tags = run.data.tags
    assert tags["lineage.parent.sha256"] == base.digest
    assert tags["base.kind"] == "bundle"
    # No run of this store made it; the one that started from it knows where it lies.
    shown = json.loads(invoke("lineage", made.path, "--json").stdout)
    (parent,) = [node for node in nodes(shown["chain"]) if node["digest"] == base.digest]
    assert (parent["kind"], parent["state"], parent["where"]) == ("parent", "ok", str(base.path))


def test_what_others_wrote_is_in_the_lineage_with_its_files(invoke, store, foreign, small_dataset, tmp_path):
    arguments = sft(small_dataset, "--base", foreign, "--preset", SMALL_PRESET, "--norm-stats", "base:droid")
    result = invoke(*arguments)
    assert result.exit_code == 0, result.output
    files = {"model.safetensors": file_digest(foreign / "model.safetensors")}
    made = trained(tmp_path)
    assert made.lineage["base"] == json_digest(files)
    assert made.config["base"]["files"] == files
    assert made.config["norm_stats"]["asset_id"] == "droid"
    statistics = (foreign / "assets/droid/norm_stats.json").read_bytes()
    assert made.norm_stats_bytes == statistics
    assert f"sha256 {bytes_digest(statistics)} (of the base, {foreign}/assets/droid/norm_stats.json)" in result.stdout
    tags = the_run(store).data.tags
    assert tags["lineage.base.sha256"] == json_digest(files)
    assert (tags["base.name"], tags["base.uri"]) == ("models/pi0_base", str(foreign))
    assert tags["norm_stats.of"] == "base"

    shown = json.loads(invoke("lineage", made.path, "--json").stdout)
    assert shown["complete"]
    (node,) = [each for each in nodes(shown["chain"]) if each["kind"] == "base"]
    assert (node["state"], node["digest"]) == ("ok", json_digest(files))
    assert "models/pi0_base" in node["title"]
    with (foreign / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    broken = json.loads(invoke("lineage", made.path, "--json").stdout)
    (node,) = [each for each in nodes(broken["chain"]) if each["state"] == "broken"]
    (problem,) = node["problems"]
    assert problem["code"] == "base-changed"
    assert str(foreign / "model.safetensors") in problem["cause"]


def nodes(node):
    """A node of a chain, and all below it."""
    yield node
    for child in node["children"]:
        yield from nodes(child)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["--norm-stats", "base"], "ambiguous-norm-stats"),
        (["--norm-stats", "base:panda"], "no-norm-stats"),
        (["--overrides", "sft.fresh=[state_projection.*]"], "unknown-parameter"),
        (["--overrides", "model.expert.mlp_dim=80"], "weights-shapes"),
    ],
)
def test_what_does_not_fit_is_refused(invoke, foreign, small_dataset, tmp_path, options, code):
    result = invoke(*sft(small_dataset, "--base", foreign, "--preset", SMALL_PRESET, *options))
    only_error(result, code)
    assert not list(tmp_path.glob("out/sft/*"))


def test_parameters_left_out_by_name_are_counted_and_new(invoke, store, foreign, small_dataset, tmp_path):
    fresh = ("--overrides", "sft.fresh=[state_proj.*]")
    result = invoke(*sft(small_dataset, "--base", foreign, "--preset", SMALL_PRESET, *fresh))
    assert result.exit_code == 0, result.output
    assert "2 new: state_proj.weight, state_proj.bias" in result.stdout
    before, after = load_file(foreign / "model.safetensors"), load_file(trained(tmp_path).path / "model.safetensors")
    differing = {name for name in before if not before[name].equal(after[name])}
    assert differing == {"state_proj.weight", "state_proj.bias"}
    assert "2 new" in the_run(store).data.tags["base.parameters"]


def test_norm_stats_of_a_base_need_one(invoke, small_dataset):
    only_error(invoke(*sft(small_dataset, "--norm-stats", "base")), "no-base")


def test_what_the_base_says_and_the_job_does_otherwise_is_a_warning(invoke, base, small_dataset, tmp_path):
    changes = ("--overrides", "policy.norm=quantile,policy.action_chunk=4")
    result = invoke(*sft(small_dataset, "--base", base.path, *changes))
    assert result.exit_code == 0, result.output
    assert "base-differs" in result.stderr
    assert "policy.norm is quantile in this job" in result.stderr
    assert "policy.action_chunk" not in result.stderr
    assert "this job has 4" in result.stdout


def test_another_state_under_the_same_layout_is_a_warning(invoke, base, tmp_path):
    """Three cubes have more poses than two."""
    small = ("--preset", SMALL_PRESET, "--overrides", "env.task=stack3,policy.state_layout=proprio+cubes")
    recorded = invoke("demos", *small, "--episodes", 1, "--renderer", "rays", "--output", "three")
    assert recorded.exit_code == 0, recorded.output
    (dataset,) = tmp_path.glob("three/demos/*")
    checked = invoke("doctor", "sft", "--base", base.path, "--dataset", dataset, *small[2:])
    assert checked.exit_code == 0, checked.output
    assert "base-differs" in checked.output
    assert "dims in this job, 23 in the base" in checked.output
    assert "sft.fresh=[state_proj.*]" in checked.output


def test_a_model_of_the_registry_and_the_last_of_a_run(invoke, store, small_dataset, tmp_path):
    assert invoke("sft", "--dataset", small_dataset, "--output", "first", "--preset", SMALL_PRESET).exit_code == 0
    run = the_run(store)
    (last,) = tmp_path.glob("first/sft/*/checkpoints/6")
    result = invoke(*sft(small_dataset, "--base", run.info.run_id))
    assert result.exit_code == 0, result.output
    made = trained(tmp_path)
    assert made.lineage["parent"] == read_bundle(last).digest
    shown = invoke("lineage", made.path, "--json")
    assert str(last) in shown.stdout
    only_error(invoke(*sft(small_dataset, "--base", "models:/nothing@champion")), "unknown-model")
    only_error(invoke(*sft(small_dataset, "--base", "0" * 32)), "missing-base")


def test_float16_weights_become_float32_masters_of_the_same_value(invoke, store, foreign, small_dataset, tmp_path):
    stored = {name: value.half() for name, value in load_file(foreign / "model.safetensors").items()}
    save_file(stored, foreign / "model.safetensors")
    assert invoke(*sft(small_dataset, "--base", foreign, "--preset", SMALL_PRESET)).exit_code == 0
    after = load_file(trained(tmp_path).path / "model.safetensors")
    assert all(after[name].equal(value.float()) for name, value in stored.items())
