"""On the real environment and a real, small checkpoint."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import metrics_of, saved

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.coverage import check_coverage
from rlinf_isaac.checkpoint.header import read_keys
from rlinf_isaac.checkpoint.write_bundle import write_bundle
from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.engines.local.rl.players import Players
from rlinf_isaac.engines.local.rl.start import load_actor_critic
from rlinf_isaac.engines.local.rl.train import evaluation_seeds, training_seeds
from rlinf_isaac.engines.policies import load_policy
from rlinf_isaac.ground.errors import InvalidJob, TrainingDiverged, WeightsError
from rlinf_isaac.ground.events import Metrics, Progress, ResultChosen, RolledBack
from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES
from rlinf_isaac.preflight.checkpoints import check_bundles


def run(job):
    return [event for event in LocalEngine().rl(job) if not isinstance(event, Progress)]


def test_events_bundles_and_the_same_run_again(make_job):
    job = make_job()
    events = run(job)
    metrics = metrics_of(events)
    assert list(metrics) == [0, 1, 2, 3]
    assert {step for step in metrics if "heldout/success_once" in metrics[step]} == {0, 2, 3}
    assert all(metrics[step]["train/first_ratio_error"] == 0.0 for step in (1, 2, 3)), "log-probabilities agree exactly"
    assert list(saved(events)) == [1, 2, 3]

    bundle = read_bundle(job.output / "checkpoints" / "3")
    assert bundle.lineage["parent"] == job.start.digest
    assert bundle.norm_stats_bytes == job.start.norm_stats_bytes
    assert bundle.lineage["dataset"] == job.start.lineage["dataset"]
    assert check_bundles([bundle]) == []
    assert sorted(map(repr, run(job))) == sorted(map(repr, events))


def test_the_policy_changes_and_the_vlm_does_not(make_job):
    job = make_job()
    run(job)
    before, after = (
        load_file(path / "model.safetensors") for path in (job.start.path, job.output / "checkpoints" / "3")
    )
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    assert "action_out_proj.weight" in moved
    assert not any(name.startswith("paligemma_with_expert.paligemma") for name in moved)


def test_heads_travel_in_the_bundle_and_evaluation_leaves_them_out_by_name(make_job):
    job = make_job("rl.exploration=flow_noise", "rl.iterations=1")
    run(job)
    bundle = read_bundle(job.output / "checkpoints" / "1")
    extra = read_keys(bundle.path).keys() - read_keys(job.start.path).keys()
    assert {name.split(".")[0] for name in extra} == {"value_head", "noise_head"}
    assert check_coverage(bundle.path, job.config.model, optional=OPTIONAL_PREFIXES) == []
    (problem,) = check_coverage(bundle.path, job.config.model)
    assert problem.code == "weights-keys"
    load_policy(bundle, job.config)


def test_rl_goes_on_from_an_rl_checkpoint_with_its_heads(make_job):
    job = make_job("rl.iterations=1")
    run(job)
    bundle = read_bundle(job.output / "checkpoints" / "1")
    again = load_actor_critic(replace(job, start=bundle))
    fresh = load_actor_critic(job)
    stored = read_keys(bundle.path)
    for name, value in again.heads.state_dict().items():
        assert name in stored
        assert not np.array_equal(value.numpy(), fresh.heads.state_dict()[name].numpy())


@pytest.fixture
def improved(make_job):
    """A bundle of rl, with a value head of 8 hidden units."""
    job = make_job("rl.iterations=1", "rl.eval_interval=0")
    run(job)
    return read_bundle(job.output / "checkpoints" / "1")


@pytest.mark.parametrize("change", [["rl.value_widths=[4]"], ["rl.value_widths=[8,8]"], ["rl.exploration=flow_noise"]])
def test_heads_that_do_not_fit_are_left_behind(make_job, improved, change):
    job = make_job("rl.iterations=1", *change)
    policy = load_actor_critic(replace(job, start=improved))
    fresh = load_actor_critic(job)
    for name, value in policy.heads.state_dict().items():
        np.testing.assert_array_equal(value, fresh.heads.state_dict()[name])
    stored = load_file(improved.path / "model.safetensors")
    np.testing.assert_array_equal(policy.model.action_out_proj.weight.detach(), stored["action_out_proj.weight"])


def with_tensors(bundle, path, extra):
    """The bundle with more tensors, sealed consistently."""
    write_bundle(
        path,
        state_dict=load_file(bundle.path / "model.safetensors") | extra,
        config=bundle.config,
        norm_stats=bundle.norm_stats_bytes,
        asset_id=bundle.asset_id,
        step=bundle.step,
        lineage=bundle.lineage,
    )
    return read_bundle(path)


@pytest.mark.parametrize("name", ["critic.weight", "value_heads.mlp.0.weight", "action_out_proj.extra"])
def test_only_the_heads_are_left_out_and_any_other_tensor_is_refused(make_job, improved, tmp_path, name):
    job = make_job()
    odd = with_tensors(improved, tmp_path / "odd", {"value_head.mlp.0.weight": torch.zeros(3, 5)})
    load_policy(odd, job.config)
    unknown = with_tensors(improved, tmp_path / "unknown", {name: torch.zeros(3)})
    (problem,) = check_coverage(unknown.path, job.config.model, optional=OPTIONAL_PREFIXES)
    assert (problem.code, name in problem.cause) == ("weights-keys", True)
    for load in (lambda: load_policy(unknown, job.config), lambda: load_actor_critic(replace(job, start=unknown))):
        with pytest.raises(WeightsError, match=name):
            load()


@pytest.mark.parametrize("exploration", ["flow_sde", "flow_noise"])
def test_grpo(make_job, exploration):
    job = make_job("rl.algorithm=grpo", "rl.group_size=2", "rl.iterations=1", f"rl.exploration={exploration}")
    (values,) = [values for step, values in metrics_of(run(job)).items() if step == 1]
    # The untrained policy never succeeds, so its groups teach nothing.
    assert values["train/actor_loss"] == 0.0
    assert values["train/first_ratio_error"] == 0.0


def test_seeds_never_meet_and_groups_share_theirs(make_job):
    rl = make_job().config.rl
    drawn = [training_seeds(rl, iteration) for iteration in (1, 2, 3)]
    assert len({seed for seeds in drawn for seed in seeds}) == 3 * rl.episodes
    assert not set(evaluation_seeds(rl)) & {seed for seeds in drawn for seed in seeds}
    rl.algorithm, rl.group_size = "grpo", 2
    assert training_seeds(rl, 2) == [rl.first_seed + 2, rl.first_seed + 2, rl.first_seed + 3, rl.first_seed + 3]


def test_workers_play_the_same_episodes(make_job):
    """Two processes with one slot each, or one after the other in one process with one slot.

    Their gradients are added up in another order, so from the second iteration on weights differ in the last bits.
    """
    common = ["rl.iterations=1", "rl.eval_interval=0"]
    one = metrics_of(run(make_job(*common, "rl.workers=1", "rl.num_envs=1", output="one")))
    two = metrics_of(run(make_job(*common, "rl.workers=2", "rl.num_envs=2", output="two")))
    again = metrics_of(run(make_job(*common, "rl.workers=2", "rl.num_envs=2", output="again")))
    assert two == again
    assert one[1].keys() == two[1].keys()
    for name, value in one[1].items():
        exact = name.startswith("rollout/") or name == "train/first_ratio_error"
        assert two[1][name] == (value if exact else pytest.approx(value, rel=1e-4, abs=1e-6)), name


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["compute.dtype=bfloat16"],
        ["compute.dtype=bfloat16", "rl.trainable=lora"],
        ["rl.trainable=all", "rl.train_vision=true", "rl.algorithm=grpo", "rl.group_size=2", "rl.reward=shaped"],
    ],
    ids=["expert", "bfloat16", "lora", "all"],
)
def test_interrupted_anywhere_it_ends_with_the_same_weights(make_job, overrides):
    whole = saved(run(make_job(*overrides, output="whole")))
    job = make_job(*overrides, output="cut")
    for stop in (1, 2):
        events = LocalEngine().rl(job)
        for event in events:
            if isinstance(event, Metrics) and event.step == stop + 1:
                break  # after the update, before its checkpoint
        events.close()
    resumed = run(job)
    assert saved(resumed) == whole
    assert list(metrics_of(resumed)) == [0, 1, 2, 3]


RUINED = ["rl.lr=1e30", "rl.warmup_iterations=1", "rl.reward=shaped"]
"""The first iteration leaves a checkpoint, because only the value head learns; in the second the policy is ruined."""


def test_a_ruined_policy_goes_back_and_learns_on_with_a_smaller_step(make_job):
    job = make_job(*RUINED, "rl.iterations=4", "rl.rollback_lr_factor=1e-34")
    events = run(job)
    (back,) = (event for event in events if isinstance(event, RolledBack))
    assert (back.iteration, back.to, back.abandoned) == (2, 1, (2,))
    assert "not finite" in back.reason or "nan" in back.reason or "inf" in back.reason
    assert back.lr == pytest.approx(1e-4)
    assert list(saved(events)) == [1, 3, 4], "of the ruined one there is none"
    metrics = metrics_of(events)
    assert [metrics[step]["rl/rollbacks"] for step in (1, 2, 3, 4)] == [0, 1, 1, 1]
    assert "rollout/success_once" in metrics[2], "what it played stays visible"
    one, three = (load_file(job.output / "checkpoints" / step / "model.safetensors") for step in ("1", "3"))
    name = "action_out_proj.weight"
    change = np.abs(np.asarray(one[name]) - np.asarray(three[name])).max()
    assert 0 < change < 0.01
    assert sorted(map(repr, run(job))) == sorted(map(repr, events)), "it is told again as it was"


def test_iterations_after_it_have_seeds_and_noise_of_their_own(make_job, monkeypatch):
    played = []
    explore = Players.explore

    def listening(self, seeds, indices, iteration):
        played.append((iteration, tuple(seeds)))
        return explore(self, seeds, indices, iteration)

    monkeypatch.setattr(Players, "explore", listening)
    run(make_job(*RUINED, "rl.iterations=4", "rl.rollback_lr_factor=1e-34"))
    assert [iteration for iteration, _ in played] == [1, 2, 3, 4]
    assert len({seed for _, seeds in played for seed in seeds}) == 4 * 4


def test_without_a_rollback_left_the_training_ends_with_its_best_checkpoint(make_job):
    job = make_job(*RUINED, "rl.iterations=5", "rl.max_rollbacks=1", "rl.rollback_lr_factor=1.0")
    events = run(job)
    assert [(event.iteration, event.to) for event in events if isinstance(event, RolledBack)] == [(2, 1)]
    assert list(saved(events)) == [1]
    assert max(metrics_of(events)) == 3
    result = events[-1]
    assert isinstance(result, ResultChosen)
    assert (result.step, result.digest, result.ended) == (1, saved(events)[1], "collapsed")
    assert "after iteration 3 and 1 roll-backs" in result.message
    assert sorted(map(repr, run(job))) == sorted(map(repr, events))


def test_a_policy_that_was_ruined_at_once_is_an_error(make_job):
    """One step per iteration: every loss is finite, the weights after it are finite, too, but of no use."""
    job = make_job("rl.lr=1e30", "rl.epochs=1", "rl.minibatch=100", "rl.reward=shaped", "rl.eval_interval=0")
    with pytest.raises(TrainingDiverged, match=r"rl\.lr"):
        run(job)
    assert not (job.output / "checkpoints").exists()


def test_without_a_guard_it_is_an_error_and_earlier_checkpoints_stay(make_job):
    job = make_job(*RUINED, "rl.iterations=5", "rl.guard=false")
    with pytest.raises(TrainingDiverged, match=r"rl\.lr"):
        run(job)
    assert [path.name for path in (job.output / "checkpoints").iterdir()] == ["1"]
    read_bundle(job.output / "checkpoints" / "1")


def test_the_result_is_said_with_its_interval(make_job):
    *_, result = run(make_job("rl.iterations=2"))
    assert (result.step, result.ended) == (2, "complete")
    assert result.message == (
        "All 2 iterations are done. The result is checkpoint 2, with 0.0 % [0.0, 65.8] (0/2) on the held-out seeds, "
        "the most of all checkpoints."
    )


def test_it_ends_at_a_target_that_is_surely_reached(make_job, monkeypatch):
    """The small policy never succeeds; here its held-out episodes are said to, from the second iteration on."""
    evaluate = Players.evaluate
    rounds = []

    def lucky(self, seeds):
        rounds.append(seeds)
        return [each._replace(success=len(rounds) > 1) for each in evaluate(self, seeds)]

    monkeypatch.setattr(Players, "evaluate", lucky)
    more = ["rl.iterations=4", "rl.eval_interval=2", "rl.save_interval=3", "rl.target_success=0.1"]
    job = make_job(*more, "rl.stop_at_target=true")
    events = run(job)
    assert list(saved(events)) == [2]
    assert (events[-1].step, events[-1].ended) == (2, "target")
    assert "2/2 is above the target of 10 %" in events[-1].message
    assert sorted(map(repr, run(job))) == sorted(map(repr, events))
    assert list(saved(run(make_job(*more, output="on")))) == [3, 4], "it goes on if it is not to stop"


def test_two_trainings_in_one_directory_are_refused(make_job):
    job = make_job()
    first = LocalEngine().rl(job)
    next(first)
    with pytest.raises(InvalidJob, match="another process"):
        next(LocalEngine().rl(job))
    first.close()
