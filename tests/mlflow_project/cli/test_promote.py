"""Promotion: the champion changes when it should, and only then."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import mlflow
import pytest
from click.testing import CliRunner
from mlflow import MlflowClient
from promotion_support import World, digest
from support import only_error

import mlflow_project.api
from mlflow_project.cli import cli
from mlflow_project.promotion.gate import RULES
from mlflow_project.serving.resolve import resolve_model
from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.ground.digest import bytes_digest

GOOD, FAIR = "s" * 20, "s" * 12 + "t" * 8
LENIENT = ("--min-success", "0.3")


def promoted(world: World, outcomes: str, *options: str, seed: int = 5000) -> Path:
    run, (path,) = world.evaluated(outcomes, first_seed=seed)
    result = world.promote(run, *LENIENT, *options)
    assert result.exit_code == 0, result.output
    assert "Gate passed: " in result.stdout
    assert world.aliases()["champion"] == digest(path)
    return path


def refused(world: World, subject: object, *rules: str, options: tuple[str, ...] = LENIENT) -> str:
    """The promotion is refused by these rules alone, and changes nothing."""
    before = world.aliases(), world.versions()
    result = world.promote(subject, *options)
    assert result.exit_code == 3, result.output
    assert f"refused by {', '.join(rules)};" in result.output
    assert (world.aliases(), world.versions()) == before
    return plain(result.output)


def plain(output: str) -> str:
    """The words of a table, whatever the width of the terminal."""
    return " ".join(re.sub("[\u2502\u2503]", " ", output).split())


def first_ever(world: World) -> None:
    path = promoted(world, FAIR)
    assert world.aliases() == {"champion": digest(path), "candidate": digest(path)}
    check_evidence(world)
    result = CliRunner().invoke(cli, ["lineage", f"models:/{world.name}@champion"])
    assert (result.exit_code, "complete: 0 breaks" in result.stdout) == (0, True), result.output
    shutil.rmtree(path)  # the bytes come from the registry now
    assert resolve_model(f"models:/{world.name}@champion").digest == world.aliases()["champion"]
    mlflow.set_tracking_uri(world.uri)
    model = mlflow.pyfunc.load_model(f"models:/{world.name}@champion")
    assert model.predict(model.input_example).shape == (1, 8, 7)


def better(world: World) -> None:
    old, new = promoted(world, FAIR), promoted(world, GOOD)
    assert world.aliases() == {"champion": digest(new), "previous": digest(old), "candidate": digest(new)}
    check_evidence(world)


def equal(world: World) -> None:
    promoted(world, FAIR)
    run, (path,) = world.evaluated(FAIR)
    output = refused(world, run, "champion")
    assert "0 won, 0 lost, 12 solved by both, 8 by neither" in output
    refused(world, path, "champion", options=(*LENIENT, "--require", "not-worse"))
    result = world.promote(path, *LENIENT, "--require", "not-worse", "--margin", "0.2", "--dry-run")
    assert (result.exit_code, world.versions()) == (0, 1), result.output
    assert world.promote(path, *LENIENT, "--require", "not-worse", "--margin", "0.2").exit_code == 0
    assert world.aliases()["champion"] == digest(path)


def worse(world: World) -> None:
    promoted(world, GOOD)
    run, _ = world.evaluated(FAIR)
    output = refused(world, run, "champion", options=(*LENIENT, "--require", "not-worse", "--margin", "0.2"))
    assert "0 won, 8 lost" in output


def too_few_episodes(world: World) -> None:
    run, _ = world.evaluated("sss")
    output = refused(world, run, "min-success", options=())
    assert "success 3/3 = 100 %, Clopper-Pearson lower bound 29.24 %" in output


def mismatched_norm_stats(world: World) -> None:
    """Sealed with statistics that its dataset does not give: every hash is right, and the chain is broken."""
    stats = json.loads(read_bundle(world.source).norm_stats_bytes)
    stats["norm_stats"]["actions"]["std"] = [10 * std for std in stats["norm_stats"]["actions"]["std"]]
    world.record_dataset()
    path = world.checkpoint(norm_stats=json.dumps(stats).encode())
    run, _ = world.evaluated(GOOD, paths=[path])
    assert "[norm-stats-not-of-dataset]" in refused(world, run, "lineage")


def edited_bundle(world: World) -> None:
    run, (path,) = world.evaluated(GOOD)
    weights = bytearray((path / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (path / "model.safetensors").write_bytes(weights)
    refused(world, run, "bundle", "lineage")


def other_seeds(world: World) -> None:
    """The champion's rows are of other seeds, so it plays the candidate's: really, and untrained, it solves none."""
    promoted(world, GOOD)
    run, _ = world.evaluated("s" * 6, first_seed=7000)
    result = world.promote(run, *LENIENT)
    assert result.exit_code == 0, result.output
    assert "(evaluated anew) on 6 seeds: 6 won, 0 lost" in plain(result.output)
    version = world.client.get_model_version_by_alias(world.name, "champion")
    nested = world.client.search_runs(
        [world.client.get_run(version.tags["promotion.run"]).info.experiment_id],
        f"tags.mlflow.parentRunId = '{version.tags['promotion.run']}'",
    )
    assert [each.data.tags["rlinf_isaac.verb"] for each in nested] == ["eval"]
    check_evidence(world)


def override_in_the_chain(world: World) -> None:
    _, (path,) = world.evaluated(GOOD, mismatch=True)
    world.evaluated(GOOD, paths=[path])
    assert "went on in spite of prompt-mismatch" in refused(world, path, "no-override")


def rollback(world: World) -> None:
    old, new = promoted(world, FAIR), promoted(world, GOOD)
    result = world.promote("--rollback")
    assert result.exit_code == 0, result.output
    assert world.aliases() == {"champion": digest(old), "candidate": digest(new)}
    taken_back = world.client.get_model_version_by_alias(world.name, "candidate")
    assert taken_back.tags["promotion.state"] == "rolled back"
    assert world.client.get_run(taken_back.tags["rollback.run"]).data.tags["promotion.outcome"] == "rolled back"
    refused(world, new, "not-rolled-back")
    assert world.promote("--rollback").exit_code == 3
    assert world.aliases()["champion"] == digest(old)


def concurrent(world: World) -> None:
    """One is overtaken between its judgement and its registration."""
    promoted(world, FAIR)
    (slow, _), (fast, (winner,)) = world.evaluated(GOOD), world.evaluated(GOOD)
    upload, results = MlflowClient.log_model_artifacts, []

    def overtaken(client, *arguments):
        if not results:
            results.append(None)
            results.append(world.promote(fast, *LENIENT))
        upload(client, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "log_model_artifacts", overtaken)
        result = world.promote(slow, *LENIENT)
    assert results[1].exit_code == 0, results[1].output
    assert result.exit_code == 3, result.output
    assert "was version 1 and is version 2 now" in result.output
    assert (world.aliases()["champion"], world.versions()) == (digest(winner), 2)


def logged_elsewhere(world: World) -> None:
    """Another machine logs the same bytes, and takes off the tag that says there are none, in the same moment."""
    run, (path,) = world.evaluated(FAIR)
    take_off, taken = MlflowClient.delete_logged_model_tag, []

    def raced(client, *tag):
        if not taken:
            taken.append(tag)
            take_off(client, *tag)
        take_off(client, *tag)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "delete_logged_model_tag", raced)
        result = world.promote(run, *LENIENT)
    assert (result.exit_code, len(taken)) == (0, 1), result.output
    assert world.aliases()["champion"] == digest(path)
    check_evidence(world)


def crash_between_steps(world: World) -> None:
    """Between the aliases; `test_killed_before_any_write` has all steps."""
    old = promoted(world, FAIR)
    run, (new,) = world.evaluated(GOOD)
    move = MlflowClient.set_registered_model_alias

    def crash(client, name, alias, version):
        if alias == "champion":
            raise KeyboardInterrupt
        move(client, name, alias, version)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "set_registered_model_alias", crash)
        assert world.promote(run, *LENIENT).exit_code == 130
    assert world.aliases() == {"champion": digest(old), "previous": digest(old), "candidate": digest(new)}
    assert world.promote(run, *LENIENT).exit_code == 0
    assert world.aliases() == {"champion": digest(new), "previous": digest(old), "candidate": digest(new)}
    check_evidence(world)


SCENARIOS = [
    first_ever,
    better,
    equal,
    worse,
    too_few_episodes,
    mismatched_norm_stats,
    edited_bundle,
    other_seeds,
    override_in_the_chain,
    rollback,
    concurrent,
    logged_elsewhere,
    crash_between_steps,
]


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda each: each.__name__)
def test_the_champion_changes_only_when_it_should(world, scenario):
    scenario(world)


def check_evidence(world: World) -> None:
    """The champion says what it is and what every rule found; the whole evidence is an artifact with the hash that a
    tag names; its model knows of it, and so does the promotion's run."""
    version = world.client.get_model_version_by_alias(world.name, "champion")
    assert all(f"- **{rule}** passed: " in version.description for rule in RULES)
    run = world.client.get_run(version.tags["promotion.run"])
    assert {f"gate.{rule}" for rule in RULES} <= set(run.data.tags)
    assert f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?" in version.description
    assert run.data.tags["mlflow.note.content"] == version.description, "whose placeholders are filled in"
    rate = 100 * run.data.metrics["gate/success_once"]
    assert version.tags["about.success"].startswith(f"{rate:.0f} % (")
    assert version.tags["about.success"] in version.description
    assert (run.data.params["gate/model"], version.tags["about.task"]) == (world.name, "stack2")
    known = world.client.get_logged_model(version.source.removeprefix("models:/")).tags["mlflow.modelVersions"]
    assert {"name": world.name, "version": int(version.version)} in json.loads(known)
    model = world.client.get_logged_model(version.source.removeprefix("models:/"))
    place = f"{model.artifact_location}/{version.tags['promotion.evidence']}"
    path = mlflow.artifacts.download_artifacts(place, tracking_uri=world.uri)
    data = Path(path).read_bytes()
    assert bytes_digest(data) == version.tags["promotion.evidence.sha256"]
    evidence = json.loads(data)
    assert [each["passed"] for each in evidence["rules"]] == [True] * len(RULES)
    assert evidence["candidate"]["checkpoint"] == version.tags["checkpoint.sha256"]
    assert len(evidence["candidate"]["rows"]) >= 6


def test_what_cannot_be_judged_is_refused_all_at_once(store, tmp_path, small_checkpoints):
    def promote(*words):
        return CliRunner().invoke(cli, ["promote", *map(str, words)])

    result = promote("none", "--min-success", "80", "--alpha", "0", "--margin", "x", "--name", "a/b")
    assert result.exit_code == 2
    assert result.stderr.count("error ") == 5
    for code in ("bad-number", "bad-model-name", "nothing-to-promote"):
        assert code in result.stderr
    only_error(promote("0" * 32), "not-in-store")
    only_error(promote(small_checkpoints / "6"), "not-in-store")
    only_error(promote("0" * 32, "--rollback"), "rollback-subject")
    result = promote("--rollback")
    assert (result.exit_code, "has no champion" in result.stderr) == (3, True), result.output
    assert not (tmp_path / "result" / "isaaclab_openpi" / "eval").exists()


@pytest.mark.parametrize(
    ("task", "name"),
    [
        (None, "stack-cube"),
        ("stack3", "stack-cube"),
        ("metaworld/reach-v3", "metaworld-reach-v3"),
        ("metaworld/mt10", "metaworld-mt10"),
        (",".join(f"metaworld/task-{number}" for number in range(10)), "10-tasks-"),
    ],
)
def test_a_registered_model_has_the_name_of_its_task(task, name):
    from mlflow_project.tracked.promote import registered_name

    assert registered_name(task).startswith(name)
    assert len(registered_name(task)) <= 60


def test_a_recipe_is_asked_for_several_trainings(world: World):
    runs = [world.evaluated(GOOD)[0] for _ in range(2)]
    only_error(world.promote(runs[0], *LENIENT, "--training-seeds", 2), "bad-arm")
    refused(
        world, runs[0], "training-seeds", options=(*LENIENT, "--training-seeds", "3", "--arm", f"candidate={runs[0]}")
    )
    found = mlflow_project.api.promote(
        runs[0],
        name=world.name,
        min_success=0.3,
        training_seeds=3,
        arms={"candidate": runs},
        output=world.directory / "api",
    )
    assert found.promotion.refused_by == ("training-seeds",)
    arm = ("--arm", f"candidate={','.join(runs)}")
    result = world.promote(runs[0], *LENIENT, "--training-seeds", 2, *arm)
    assert result.exit_code == 0, result.output
    assert "2 trainings, mean 100.0 %" in plain(result.output)
