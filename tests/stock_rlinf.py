"""RLinf as its own examples run it: the mains of RLinf 0.3's ``examples/embodiment/train_embodied_agent.py`` and
``evaluations/eval_embodied_agent.py``, which are not in the wheel, on a simulator that shows noise.

    RLINF_EXT_MODULE=stock_rlinf python -m stock_rlinf embodied|embodied_eval LOG_PATH [KEY=VALUE ...]

under an interpreter that has RLinf, with this directory on PYTHONPATH and a Ray cluster at RAY_ADDRESS. Without an
accelerator RLinf's workers do not start; `OnAnyDevice`, which mends that, is all that is taken from this project.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from omegaconf import OmegaConf
from rlinf.config import validate_cfg
from rlinf.envs.isaaclab import REGISTER_ISAACLAB_ENVS
from rlinf.envs.isaaclab.isaaclab_env import IsaaclabBaseEnv
from rlinf.runners.embodied_eval_runner import EmbodiedEvalRunner
from rlinf.runners.embodied_runner import EmbodiedRunner
from rlinf.scheduler import Cluster
from rlinf.utils.placement import HybridComponentPlacement
from rlinf.workers.actor.fsdp_actor_worker import EmbodiedFSDPActor
from rlinf.workers.env.env_worker import EnvWorker
from rlinf.workers.rollout.hf.huggingface_worker import MultiStepRolloutWorker

from rlinf_isaac.engines.rlinf.worker.cpu import OnAnyDevice

STATE_DIM, ACTION_DIM = 8, 7

CONFIG = """
cluster: {num_nodes: 1, component_placement: {"actor,env,rollout": all}}
runner:
  logger: {log_path: "???", project_name: rlinf, experiment_name: noise, logger_backends: [tensorboard]}
  max_epochs: 3
  max_steps: 3
  only_eval: false
  val_check_interval: 1
  save_interval: 2
  ckpt_path: null
  resume_dir: null
weight_syncer:
  type: bucket
  bucket: {bucket_size: 134217728, bucket_dtype: null, bucket_device: cpu, is_agent: false, load_instant: true}
algorithm:
  update_epoch: 1
  normalize_advantages: true
  kl_penalty: kl
  group_size: 1
  reward_type: action_level
  logprob_type: action_level
  entropy_type: action_level
  adv_type: gae
  loss_type: actor_critic
  loss_agg_func: token-mean
  bootstrap_type: always
  kl_beta: 0.0
  entropy_bonus: 0
  clip_ratio_high: 0.2
  clip_ratio_low: 0.2
  clip_ratio_c: 3.0
  value_clip: 1.0
  huber_delta: 10.0
  gamma: 0.8
  gae_lambda: 0.9
env:
  group_name: EnvGroup
  train: &env
    env_type: isaaclab
    total_num_envs: 4
    auto_reset: true
    ignore_terminations: false
    use_rel_reward: true
    seed: 7
    group_size: 1
    reward_coef: 1.0
    rollout_epoch: 2
    max_episode_steps: 8
    max_steps_per_rollout_epoch: 8
    use_fixed_reset_state_ids: true
    video_cfg: {save_video: true, info_on_video: true, fps: 20, video_base_dir: "${runner.logger.log_path}/video/train"}
    init_params: {id: Noise-v0, num_envs: null, max_episode_steps: 8, task_description: stack}
  eval:
    <<: *env
    video_cfg: {save_video: true, info_on_video: true, fps: 20, video_base_dir: "${runner.logger.log_path}/video/eval"}
rollout:
  group_name: RolloutGroup
  backend: huggingface
  enable_offload: false
  pipeline_stage_num: 1
  model: &model
    model_type: mlp_policy
    model_path: ""
    precision: "32"
    obs_dim: 8
    action_dim: 7
    num_action_chunks: 1
    add_value_head: true
    is_lora: false
    policy_setup: none
actor:
  group_name: ActorGroup
  training_backend: fsdp
  micro_batch_size: 8
  global_batch_size: 64
  seed: 0
  enable_offload: false
  model: *model
  optim:
    lr: 1.0e-3
    value_lr: 1.0e-3
    adam_beta1: 0.9
    adam_beta2: 0.95
    adam_eps: 1.0e-8
    weight_decay: 0.01
    clip_grad: 1.0
  fsdp_config:
    strategy: fsdp2
    sharding_strategy: no_shard
    gradient_checkpointing: false
    wrap_policy: {no_split_names: [backbone]}
    mixed_precision: {param_dtype: null, reduce_dtype: null, buffer_dtype: null}
reward: {use_reward_model: false}
critic: {use_critic_model: false}
"""


class NoiseSimulator:
    """What RLinf's ``SubProcIsaacLabEnv`` is to its environments: random pixels, states and rewards."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self.random = num_envs, torch.Generator()

    def device(self) -> torch.device:
        return torch.device("cpu")

    def reset(self, seed: int | None = None, env_ids: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        if seed is not None:
            self.random.manual_seed(seed)
        return self._observation(), {}

    def step(self, actions: Any) -> tuple[Any, ...]:
        reward = (torch.rand(self.num_envs, generator=self.random) > 0.95).float()
        ended = torch.zeros(self.num_envs, dtype=torch.bool)
        return self._observation(), reward, ended, ended.clone(), {}

    def close(self) -> None: ...

    def _observation(self) -> dict[str, Any]:
        size = (self.num_envs, 32, 32, 3)
        front, wrist = (torch.randint(0, 255, size, generator=self.random, dtype=torch.uint8) for _ in range(2))
        states = torch.rand(self.num_envs, STATE_DIM, generator=self.random)
        return {"main_images": front, "wrist_images": wrist, "states": states}


class NoiseEnv(IsaaclabBaseEnv):
    """RLinf's environment class, with its metrics, over `NoiseSimulator`."""

    def _init_isaaclab_env(self) -> None:
        self.env = NoiseSimulator(self.num_envs)
        self.env.reset(seed=self.seed)

    def _wrap_obs(self, obs: dict[str, Any]) -> dict[str, Any]:
        return obs | {"task_descriptions": [self.task_description] * self.num_envs}


class LooseEnv(NoiseEnv):
    """What environments of other people return from `chunk_step`: the last observation and the last info alone, and
    no info where no episode has ended."""

    def chunk_step(self, chunk_actions: Any) -> tuple[Any, ...]:
        observations, rewards, terminations, truncations, infos = super().chunk_step(chunk_actions)
        info = infos[-1] if "final_info" in infos[-1] else None
        return observations[-1], rewards, terminations, truncations, info


class Simulators(OnAnyDevice, EnvWorker):
    """RLinf's."""


class Policies(OnAnyDevice, MultiStepRolloutWorker):
    """RLinf's."""


class Learner(OnAnyDevice, EmbodiedFSDPActor):
    """RLinf's."""


def register() -> None:
    """What RLinf calls in every worker."""
    REGISTER_ISAACLAB_ENVS["Noise-v0"] = NoiseEnv
    REGISTER_ISAACLAB_ENVS["Loose-v0"] = LooseEnv


def main(task: str, log_path: str, *overrides: str) -> None:
    """As in RLinf's examples."""
    cfg = OmegaConf.merge(OmegaConf.create(CONFIG), OmegaConf.from_dotlist(list(overrides)))
    cfg.runner.task_type, cfg.runner.logger.log_path = task, log_path
    workers: dict[str, Any] = {"rollout": Policies, "env": Simulators}
    if task == "embodied_eval":
        cfg.runner.only_eval = True
        del cfg.actor
    else:
        workers = {"actor": Learner, **workers}
    cfg = validate_cfg(cfg)
    cluster = Cluster(cluster_cfg=cfg.cluster)
    placement = HybridComponentPlacement(cfg, cluster)
    groups = {
        name: kind.create_group(cfg).launch(
            cluster, name=cfg[name].group_name, placement_strategy=placement.get_strategy(name)
        )
        for name, kind in workers.items()
    }
    runner = (EmbodiedEvalRunner if task == "embodied_eval" else EmbodiedRunner)(cfg=cfg, **groups)
    runner.init_workers()
    runner.run()


if __name__ == "__main__":
    from stock_rlinf import main as importable  # worker classes of __main__ would be pickled by value

    importable(*sys.argv[1:])
