"""A checkpoint of somebody else, from its files to the registry: what nobody says of it is asked for once."""

from __future__ import annotations

import json
import re
import shlex
import shutil

import pytest
from mlflow import MlflowClient
from support import SHORT_EVALUATION, SMALL_PRESET, only_error

from mlflow_project.serving.policy import ServedPolicy, serving_config
from mlflow_project.serving.resolve import resolve_model
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.facts import assume, assumed, not_known, parse_assumptions
from rlinf_isaac.envs.stack_cube.contract import TASKS

PROMPT = TASKS["stack2"].prompt


@pytest.fixture
def stranger(invoke, small_checkpoints, small_dataset, tmp_path):
    """A bundle made of loose weights; its dataset is known, and nothing else."""
    source = tmp_path / "loose" / "4"
    source.mkdir(parents=True)
    trained = read_bundle(small_checkpoints / "4")
    shutil.copyfile(trained.path / "model.safetensors", source / "model.safetensors")
    (source / "norm_stats.json").write_bytes(trained.norm_stats_bytes)
    told = ("--overrides", "policy.action_chunk=8")
    command = ("bundle", "make", source, "--preset", SMALL_PRESET, *told, "--output", "out")
    result = invoke(*command, "--dataset", small_dataset)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return tmp_path / "out/bundles/loose"


def evaluate(root, *more):
    options = ("--episodes", "2", "--videos", "1", "--output", "out", "--overrides", SHORT_EVALUATION)
    return ("eval", "--ckpt-root", root, *options, *more)


def test_it_is_asked_once_and_the_cure_is_typed_as_it_stands(invoke, store, stranger):
    result = invoke(*evaluate(stranger))
    only_error(result, "not-known")
    unknown = not_known(read_bundle(stranger / "4"))
    assert unknown
    option = re.search(r'--assume "(.+?)"; name', result.stderr)
    assert option is not None
    result = invoke(*evaluate(stranger, *shlex.split(f'--assume "{option[1]}"')))
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert "Assumed of the training: " in result.stdout

    client = MlflowClient(store)
    runs = client.search_runs(["1"], "tags.`checkpoint.sha256` != '' and metrics.`eval/episodes` > 0")
    (nested,) = runs
    for fact in unknown:
        assert nested.data.tags[f"assumed.{fact}"]
    parent = client.get_run(nested.data.tags["mlflow.parentRunId"])
    assert "Assumed of the training: " in parent.data.tags["mlflow.note.content"]
    # The same command finds the same rows: an assumption is part of what they depend on.
    again = invoke(*evaluate(stranger, "--assume", "all"))
    assert again.exit_code == 0, again.output
    assert len(list((stranger.parents[1] / "eval").rglob("episodes.jsonl"))) == 1


def test_with_a_mismatch_allowed_it_runs_and_is_tagged(invoke, store, stranger):
    result = invoke(*evaluate(stranger, "--allow-mismatch"))
    assert result.exit_code == 0, result.output + repr(result.exception)
    runs = MlflowClient(store).search_runs(["1"], "tags.`mismatch.not-known` != ''")
    assert len(runs) == 2
    for run in runs:
        assert all(
            f"\n  {fact}:" in run.data.tags["mismatch.not-known"] for fact in not_known(read_bundle(stranger / "4"))
        )


def test_rl_and_serve_ask_the_same_question(invoke, stranger):
    for command in (("rl", "--ckpt-root", stranger, "--output", "out"), ("serve", stranger / "4")):
        result = invoke(*command)
        only_error(result, "not-known")
        assert "--assume all" in result.stderr
        assert "--allow-mismatch" not in result.stderr, "they have no such option"


def test_wrong_words_are_refused_before_anything_starts(invoke, stranger):
    only_error(invoke(*evaluate(stranger, "--assume", "colour=blue")), "bad-assumption")
    only_error(invoke(*evaluate(stranger, "--assume", "prompt='Pile.'")), "needless-assumption")


def test_what_was_assumed_goes_with_the_model_into_the_registry(invoke, store, stranger):
    assert invoke(*evaluate(stranger, "--assume", "all")).exit_code == 0
    result = invoke("promote", stranger / "4", "--min-success", "0", "--name", "strangers", "--output", "out")
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert "nobody recorded it" in " ".join(result.stdout.split())
    version = MlflowClient(store).get_model_version_by_alias("strangers", "champion")
    told = {key for key in version.tags if key.startswith("promotion.assumed.")}
    before = read_bundle(stranger / "4")
    bundle = resolve_model("models:/strangers@champion")
    assert not_known(before)
    assert not_known(bundle) == ()
    # What `bundle make` was told by its overrides, and what the evaluation was told since.
    assert set(assumed(bundle)) == {*assumed(before), *not_known(before)}
    assert told == {f"promotion.assumed.{fact}" for fact in assumed(bundle)}
    metadata = ServedPolicy(bundle, serving_config(bundle), exact="false").metadata()
    assert metadata["prompts"] == [PROMPT]
    assert list(metadata["assumed"]) == list(assumed(bundle))


def test_dims_that_a_dataset_does_not_name_are_said_wherever_the_checkpoint_goes(
    invoke, store, small_dataset, tmp_path
):
    root = tmp_path / "unnamed"
    shutil.copytree(small_dataset, root)
    info = json.loads((root / "meta/info.json").read_text())
    info["features"]["observation.state"]["names"] = ["state"]
    (root / "meta/info.json").write_text(json.dumps(info))
    overrides = ("--preset", SMALL_PRESET, "--output", "out", "--steps", "2")
    result = invoke("sft", "--dataset", root, *overrides)
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert "unnamed-dims" in result.stderr
    (checkpoint,) = tmp_path.glob("out/sft/*/checkpoints/2")
    trained = read_bundle(checkpoint)
    assert list(assumed(trained)) == ["state"]
    assert assume(trained, parse_assumptions("all")) is trained
    (run,) = MlflowClient(store).search_runs(["1"], "tags.`assumed.state` != ''")
    assert run.data.tags["assumed.state"].startswith("[eef_x,")
    result = invoke(*evaluate(checkpoint.parent))
    assert result.exit_code == 0, result.output + repr(result.exception)
    assert "Assumed of the training: state=[eef_x," in result.stdout
    result = invoke("lineage", checkpoint, "--json")
    assert "assumed: state=[eef_x," in result.stdout


@pytest.mark.parametrize(("edit", "code"), [("fps", "fps"), ("prompt", "prompt")])
def test_another_rate_or_prompt_is_trained_on_when_it_is_meant(invoke, store, small_dataset, tmp_path, edit, code):
    root = tmp_path / "other"
    shutil.copytree(small_dataset, root)
    if edit == "fps":
        info = json.loads((root / "meta/info.json").read_text())
        (root / "meta/info.json").write_text(json.dumps(info | {"fps": 40}))
        for file in root.glob("data/*/*.parquet"):
            _twice_as_fast(file)
    else:
        tasks = (root / "meta/tasks.jsonl").read_text()
        (root / "meta/tasks.jsonl").write_text(tasks.replace("Stack", "Pile"))
    command = ("--dataset", root, "--preset", SMALL_PRESET, "--output", "out", "--steps", "2")
    only_error(invoke("sft", *command), code)
    result = invoke("sft", *command, "--allow-mismatch")
    assert result.exit_code == 0, result.output + repr(result.exception)
    (run,) = MlflowClient(store).search_runs(["1"], "tags.allow_mismatch = 'true'")
    assert f"mismatch.{code}" in run.data.tags
    statistics = ("norm_stats", "--dataset", root, "--preset", SMALL_PRESET, "--output", "out")
    if edit == "fps":
        only_error(invoke(*statistics), code)
        statistics = (*statistics, "--allow-mismatch")
    assert invoke(*statistics).exit_code == 0
    (checkpoints,) = tmp_path.glob("out/sft/*/checkpoints")
    result = invoke(*evaluate(checkpoints))
    assert result.exit_code == 2
    assert {"fps": "control-rate-mismatch", "prompt": "prompt-mismatch"}[edit] in result.stderr


def _twice_as_fast(file):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(file)
    index = table.column_names.index("timestamp")
    halved = pa.array([value / 2 for value in table["timestamp"].to_pylist()], table.schema.field(index).type)
    pq.write_table(table.set_column(index, table.schema.field(index), halved), file)
