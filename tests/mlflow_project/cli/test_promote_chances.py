"""The gate asks the same of a checkpoint however it is named, and counts every attempt: in a real store."""

from __future__ import annotations

from promotion_support import World, digest

LENIENT = ("--min-success", "0.3", "--dry-run")
BEST, FAIR, POOR = "s" * 18 + "tt", "s" * 12 + "t" * 8, "s" * 8 + "t" * 12


def asked(world: World, subject: object, *options: str) -> tuple[str, dict[str, str]]:
    """The level at which a candidate of this name is tested, with what it consists of, and the newest tags."""
    result = world.promote(subject, *(options or LENIENT))
    assert result.exit_code in (0, 3), result.output
    experiments = [each.experiment_id for each in world.client.search_experiments()]
    query = "tags.`rlinf_isaac.verb` = 'promote'"
    newest = world.client.search_runs(experiments, query, max_results=1, order_by=["attributes.start_time DESC"])
    tags = newest[0].data.tags
    return tags["gate.min-success"].partition("; alpha is ")[2], tags


def asked_by_all(world: World, subjects: list[object]) -> str:
    """The one answer that all names of a candidate get."""
    answers = {asked(world, subject)[0] for subject in subjects}
    assert len(answers) == 1, answers
    return answers.pop()


def test_one_checkpoint_is_asked_the_same_by_all_its_names(world):
    sweep, paths = world.evaluated(POOR, FAIR, BEST)
    best = paths[2]
    nested = world.nested(sweep)[digest(best)]
    link = f"http://127.0.0.1:5000/#/experiments/1/runs/{nested}"
    of_three = f"0.05 / (1 x 4) as the best of 3 evaluations: 3 of sweep eval 5000 ({sweep[:8]})"
    assert asked_by_all(world, [sweep, nested, link, best]) == of_three

    again, _ = world.evaluated(BEST, paths=[best])  # the winner alone, on the same seeds: the same rows
    alone = world.nested(again)[digest(best)]
    assert asked_by_all(world, [again, alone]) == of_three

    fresh, _ = world.evaluated(FAIR, paths=[best], first_seed=6000)
    parts = f"3 of sweep eval 5000 ({sweep[:8]}), 1 of sweep eval 6000 ({fresh[:8]})"
    of_four = f"0.05 / (4 x 5) as the best of 4 evaluations: {parts}"
    assert asked_by_all(world, [alone, fresh]) == of_four

    for run in set(world.nested(sweep).values()) - {nested}:  # who deletes the losers has seen them nevertheless
        world.client.delete_run(run)
    assert asked(world, best)[0] == of_four


def test_a_sweep_that_is_not_finished_counts_in_full(world):
    sweep, (path,) = world.evaluated(BEST, planned=3)
    parts = f"1 of sweep eval 5000 ({sweep[:8]}), 2 that the newest sweep has not finished"
    assert asked(world, path)[0] == f"0.05 / (1 x 4) as the best of 3 evaluations: {parts}"


def test_the_count_begins_anew_with_a_champion_and_goes_on_when_it_is_taken_back(world):
    first, (old, second) = world.evaluated(BEST, FAIR)
    assert asked(world, first, "--min-success", "0.3")[0].startswith("0.05 / (1 x 3)")

    _, (new,) = world.evaluated("s" * 20)
    assert asked(world, new)[0].startswith(
        "0.05 / (1 x 2) as the first evaluation since version 1 became champion: 1 of"
    )
    assert asked(world, second)[0].startswith(
        "0.05 / (2 x 3) as the best of 2 evaluations: 1 of"
    )  # the champion is none

    options = ("--min-success", "0.3", "--require", "not-worse", "--margin", "0.4")
    assert asked(world, new, *options)[1]["promotion.outcome"] == "promoted"
    assert world.promote("--rollback").exit_code == 0
    _, (newer,) = world.evaluated(FAIR)
    assert asked(world, newer)[0].startswith("0.05 / (2 x 3) as the best of 2 evaluations since version 1 became")
    assert digest(old) == world.aliases()["champion"]


def test_what_was_trained_from_a_checkpoint_inherits_what_that_was_picked_from(world):
    first, (_, start) = world.evaluated(BEST, FAIR)
    assert asked(world, first, "--min-success", "0.3")[1]["promotion.outcome"] == "promoted"
    path = world.checkpoint(parent=start)
    world.evaluated(FAIR, paths=[path])
    assert asked(world, path)[0].startswith("0.05 / (2 x 3) as the best of 2 evaluations: 1 of sweep")
    _, (fresh,) = world.evaluated(FAIR, paths=[world.checkpoint(parent=start)], first_seed=6000)
    assert asked(world, fresh)[0].startswith("0.05 / (2 x 3) as the best of 2 evaluations since version 1 became")
    assert asked(world, path)[0].startswith("0.05 / (3 x 4) as the best of 3 evaluations: 1 of sweep")


def test_what_was_assumed_is_shown_and_becomes_a_tag_of_the_version(world):
    path = world.checkpoint(assumed={"prompt": "Stack.", "control_hz": 20})
    sweep, _ = world.evaluated("s" * 20, paths=[path])
    nested = world.nested(sweep)[digest(path)]
    for field, value in (("prompt", "Stack the cubes."), ("control_hz", "20")):
        world.client.set_tag(nested, f"assumed.{field}", value)
    tags = asked(world, path, "--min-success", "0.3")[1]
    assert tags["promotion.outcome"] == "promoted"
    version = world.client.get_model_version_by_alias(world.name, "champion")
    assumed = {key: value for key, value in version.tags.items() if "assum" in key}
    unrecorded = f"was assumed for step-{path.name} (nobody recorded it)"
    assert assumed == {
        "promotion.assumed.prompt": "Stack.; Stack the cubes.",
        "promotion.assumed.control_hz": "20",
    }
    said = f"control_hz=20 {unrecorded}; prompt=Stack. {unrecorded}; prompt=Stack the cubes. {unrecorded}"
    assert tags["gate.assumptions"] == said
    assert "was assumed for" in version.description
