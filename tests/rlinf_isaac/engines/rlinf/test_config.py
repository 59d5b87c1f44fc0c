"""RLinf's config of a job, composed and checked without RLinf."""

from __future__ import annotations

from dataclasses import replace

import pytest
from omegaconf import OmegaConf
from support import SMALL_RL, small_config

from rlinf_isaac.checkpoint.bundle import read_bundle, select_bundles
from rlinf_isaac.config import flatten, load_config
from rlinf_isaac.engines.base import EvaluationJob, RlJob, SftJob
from rlinf_isaac.engines.rlinf.compose import CONFIGS
from rlinf_isaac.engines.rlinf.config import evaluation_config, rl_config, sft_config
from rlinf_isaac.envs.stack_cube.contract import TASKS
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.preflight import check_config


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


@pytest.mark.parametrize("preset", ["pi0", "pi05", "pi0_gr00t_baseline", "pi05_gr00t_baseline"])
def test_full_size_presets_compose(evaluation, reinforcement, tmp_path, preset):
    job = load_config(preset)
    assert {problem.code for problem in check_config(job)} <= {"no-tokenizer"}  # PaliGemma's is not shipped
    trained = load_config(preset, ["compute.dtype=float32"])
    sft = sft_config(SftJob(trained, tmp_path / "data", "0" * 64, b"{}", tmp_path), tmp_path / "stats", tmp_path, None)
    evaluation = evaluation_config(replace(evaluation, config=job), tmp_path)
    rl = rl_config(replace(reinforcement, config=job), tmp_path, None)
    for model in (sft.actor.model, evaluation.rollout.model, rl.actor.model):
        assert model.num_action_chunks == job.policy.action_chunk
        assert model.job.model.pi05 == preset.startswith("pi05")
    for env in (evaluation.env.eval, rl.env.eval, rl.env.train):
        assert env.max_steps_per_rollout_epoch == env.max_episode_steps == job.env.max_episode_steps


def test_fine_tuning_of_a_kind_that_it_does_not_have_is_refused_with_a_cure(tmp_path):
    asked = ["sft.trainable=lora", "sft.ema_decay=0.9", "sft.decay_steps=500"]
    job = SftJob(small_config(asked), tmp_path, "0" * 64, b"{}", tmp_path)
    with pytest.raises(InvalidJob) as caught:
        sft_config(job, tmp_path / "stats", tmp_path, None)
    assert codes(caught) == ["rlinf-unsupported"] * 3
    cures = [problem.cure.split()[1].rstrip(",") for problem in caught.value.problems]
    cured = SftJob(small_config([*asked, *cures]), tmp_path, "0" * 64, b"{}", tmp_path)
    assert sft_config(cured, tmp_path / "stats", tmp_path, None)


def test_fine_tuning_in_a_format_that_its_workers_do_not_have_is_refused(tmp_path):
    config = small_config(["compute.dtype=bfloat16", "compute.num_processes=2"])
    job = SftJob(config, tmp_path, "0" * 64, b"{}", tmp_path)
    with pytest.raises(InvalidJob) as caught:
        sft_config(job, tmp_path / "stats", tmp_path, None)
    assert codes(caught) == ["rlinf-unsupported"] * 2


def test_fine_tuning_on_several_datasets_is_refused(tmp_path):
    job = SftJob(small_config(), tmp_path, "0" * 64, b"{}", tmp_path, mixed_with=(tmp_path / "other",))
    with pytest.raises(InvalidJob, match="names 2 datasets") as caught:
        sft_config(job, tmp_path / "stats", tmp_path, None)
    assert codes(caught) == ["rlinf-unsupported"]


# RLinf v0.3 (0505431), examples/embodiment/config/isaaclab_franka_stack_cube_ppo_gr00t.yaml and what it includes.
GR00T_BASELINE = """
runner: {save_interval: 20, val_check_interval: -1}
algorithm:
  normalize_advantages: true
  kl_penalty: kl
  group_size: 1
  reward_type: chunk_level
  logprob_type: chunk_level
  entropy_type: chunk_level
  update_epoch: 3
  adv_type: gae
  loss_type: actor_critic
  loss_agg_func: token-mean
  kl_beta: 0.0
  entropy_bonus: 0.0
  clip_ratio_high: 0.2
  clip_ratio_low: 0.2
  clip_ratio_c: 3.0
  value_clip: 0.2
  huber_delta: 10.0
  gamma: 0.99
  gae_lambda: 0.95
env:
  train: {rollout_epoch: 2, total_num_envs: 64, max_episode_steps: 448, max_steps_per_rollout_epoch: 448, seed: 0}
actor:
  micro_batch_size: 32
  global_batch_size: 512
  seed: 1234
  model: {add_value_head: true}
  optim:
    lr: 1.0e-5
    value_lr: 2.0e-5
    adam_beta1: 0.9
    adam_beta2: 0.95
    adam_eps: 1.0e-08
    clip_grad: 1.0
    weight_decay: 0.01
    critic_warmup_steps: 0
"""
GR00T_EVALUATION = {"rollout_epoch": 3, "total_num_envs": 32, "max_episode_steps": 448, "seed": 0}


@pytest.mark.parametrize("preset", ["pi0_gr00t_baseline", "pi05_gr00t_baseline"])
def test_the_gr00t_baselines_settings_are_rlinfs(evaluation, reinforcement, tmp_path, preset):
    job = load_config(preset)
    rl = rl_config(replace(reinforcement, config=job), tmp_path, None)
    wanted = OmegaConf.create(GR00T_BASELINE)
    assert OmegaConf.merge(rl, wanted) == rl
    assert rl.runner.max_steps == 1000

    env = evaluation_config(replace(evaluation, config=job), tmp_path).env.eval
    assert {key: env[key] for key in GR00T_EVALUATION if key != "rollout_epoch"} == {
        key: value for key, value in GR00T_EVALUATION.items() if key != "rollout_epoch"
    }
    # Epochs are as many as the episodes take; the environments go on with their next seeds.
    assert job.eval.episodes == GR00T_EVALUATION["rollout_epoch"] * GR00T_EVALUATION["total_num_envs"]
    assert job.eval.first_seed == GR00T_EVALUATION["seed"]
    assert env.init_params.task_description == TASKS["stack3"].prompt


def test_of_the_gr00t_baselines_only_the_model_and_its_chunk_differ():
    ours = flatten(load_config("pi0_gr00t_baseline")), flatten(load_config("pi05_gr00t_baseline"))
    plain = flatten(load_config("pi0")), flatten(load_config("pi05"))
    different = {key for key in ours[0] if ours[0][key] != ours[1][key]}
    assert different == {key for key in plain[0] if plain[0][key] != plain[1][key]}
    assert (ours[0]["policy.action_chunk"], ours[1]["policy.action_chunk"]) == (16, 8)
