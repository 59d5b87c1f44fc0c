"""RLinf's config of a job, composed and checked without RLinf."""

from __future__ import annotations

from dataclasses import replace

import pytest
from omegaconf import OmegaConf
from support import SMALL_RL, small_config

from rlinf_isaac.checkpoint.bundle import read_bundle, select_bundles
from rlinf_isaac.engines.base import EvaluationJob, RlJob, SftJob
from rlinf_isaac.engines.rlinf.config import CONFIGS, evaluation_config, rl_config, sft_config
from rlinf_isaac.errors import InvalidJob


@pytest.fixture
def bundles(small_checkpoints):
    return tuple(read_bundle(path, verify=False) for path in select_bundles(small_checkpoints, None))


@pytest.fixture
def evaluation(bundles, tmp_path):
    return EvaluationJob(small_config(), bundles, tmp_path / "eval")


@pytest.fixture
def reinforcement(bundles, tmp_path):
    config = small_config([*SMALL_RL, "rl.eval_interval=1"])
    return RlJob(config, bundles[0], tmp_path / "rl")


def codes(caught) -> list[str]:
    return [problem.code for problem in caught.value.problems]


def test_nothing_is_missing_and_nothing_is_left_to_resolve(evaluation, reinforcement, tmp_path):
    sft = SftJob(small_config(), tmp_path / "data", "0" * 64, b"{}", tmp_path)
    for config in (
        evaluation_config(evaluation, tmp_path),
        rl_config(reinforcement, tmp_path, None),
        sft_config(sft, tmp_path / "norm_stats.json", tmp_path, None),
    ):
        assert OmegaConf.missing_keys(config) == set()
        assert "${" not in OmegaConf.to_yaml(config)
        assert OmegaConf.to_container(config) == OmegaConf.to_container(config, resolve=True)


def test_weights_come_as_bundles_never_as_a_checkpoint_path(evaluation, reinforcement, tmp_path):
    config = evaluation_config(evaluation, tmp_path)
    assert config.rollout.model.model_path == str(evaluation.bundles[0].path)
    assert config.runner.ckpt_path is None
    config = rl_config(reinforcement, tmp_path, None)
    assert config.actor.model.model_path == config.rollout.model.model_path == str(reinforcement.start.path)
    assert config.runner.ckpt_path is None


def test_an_override_of_the_user_wins(evaluation, tmp_path):
    assert evaluation_config(evaluation, tmp_path, ["rollout.pipeline_stage_num=2"]).rollout.pipeline_stage_num == 2


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("rollout.pipeline_stages=2", "rlinf-unknown-key"),
        ("algorithm.eval_rollout_epoch=2", "rlinf-unknown-key"),  # of older RLinf releases
        ("runner.ckpt_path=full_weights.pt", "rlinf-not-overridable"),
        ("rollout.model.model_path=/elsewhere", "rlinf-not-overridable"),
        ("env.eval.init_params.job.eval.first_seed=1", "rlinf-not-overridable"),
        ("pipeline", "bad-override"),
        ("env.eval.max_episode_steps=17", "rlinf-steps-chunk"),
        ("env.eval.max_steps_per_rollout_epoch=8", "rlinf-short-epoch"),
        ("rollout.pipeline_stage_num=3", "rlinf-env-split"),
    ],
)
def test_what_does_not_fit_is_refused(evaluation, tmp_path, override, code):
    with pytest.raises(InvalidJob) as caught:
        evaluation_config(evaluation, tmp_path, [override])
    assert code in codes(caught)
    assert override.partition("=")[0].rpartition(".")[2] in str(caught.value)


def test_all_unknown_keys_at_once(evaluation, tmp_path):
    with pytest.raises(InvalidJob) as caught:
        evaluation_config(evaluation, tmp_path, ["a=1", "b.c=2"])
    assert codes(caught) == ["rlinf-unknown-key"] * 2


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ("rl.algorithm=grpo", "rlinf-unsupported"),
        ("rl.target_kl=0.1", "rlinf-unsupported"),
        ("rl.entropy_bonus=0.1", "rlinf-unsupported"),
        ("rl.eval_interval=2", "rlinf-intervals"),
    ],
)
def test_what_rlinf_does_not_offer_is_refused(reinforcement, tmp_path, change, code):
    job = replace(reinforcement, config=small_config([*SMALL_RL, "rl.eval_interval=1", change]))
    with pytest.raises(InvalidJob) as caught:
        rl_config(job, tmp_path, None)
    assert codes(caught) == [code]


@pytest.mark.parametrize("override", ["actor.micro_batch_size=3", "actor.micro_batch_size=100"])
def test_batches_divide(reinforcement, tmp_path, override):
    with pytest.raises(InvalidJob) as caught:
        rl_config(reinforcement, tmp_path, None, [override])
    assert codes(caught) == ["rlinf-batch-split"]


@pytest.mark.parametrize("envs", [2, 5, 64])
@pytest.mark.parametrize("minibatch", [1, 7, 512])
@pytest.mark.parametrize("accumulate", [0, 1, 3])
def test_sizes_of_a_reinforcement_divide_each_other(reinforcement, tmp_path, envs, minibatch, accumulate):
    changes = [f"rl.num_envs={envs}", f"rl.minibatch={minibatch}", f"rl.accumulate={accumulate}", "rl.eval_interval=1"]
    job = replace(reinforcement, config=small_config([*SMALL_RL, *changes]))
    config = rl_config(job, tmp_path, None)
    rows = envs * 2 * config.env.train.rollout_epoch  # episodes of two chunks
    assert envs * config.env.train.rollout_epoch >= job.config.rl.episodes
    assert rows % config.actor.global_batch_size == 0
    assert config.actor.global_batch_size % config.actor.micro_batch_size == 0
    assert config.actor.micro_batch_size <= minibatch


def test_a_resumed_training_has_seeds_that_were_not_used(reinforcement, tmp_path):
    first = rl_config(reinforcement, tmp_path, None).env.train.init_params.seeds[0]
    later = rl_config(reinforcement, tmp_path, tmp_path / "global_step_3").env.train.init_params.seeds[0]
    assert later > first


def test_the_package_brings_its_configs():
    assert {path.stem for path in CONFIGS.glob("*.yaml")} == {"eval", "sft", "rl"}
