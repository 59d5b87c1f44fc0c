"""The structured job config. One preset YAML fills it; the command line overrides it; an unknown key is an error.

Which keys a verb reads is in `reads`; the sections it has to do with are MLflow params ``cfg/...`` of its run.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

from rlinf_isaac.config.sft_schema import SftConfig


@dataclass
class GemmaConfig:
    """A Gemma transformer (the VLM's language model, or the action expert). OpenPI: ``models/gemma.py``."""

    width: int = MISSING
    depth: int = MISSING
    mlp_dim: int = MISSING
    num_heads: int = MISSING
    num_kv_heads: int = MISSING
    head_dim: int = MISSING


@dataclass
class VisionConfig:
    """The SigLIP vision tower. `image_size` in pixels must be a multiple of `patch_size`."""

    width: int = MISSING
    depth: int = MISSING
    mlp_dim: int = MISSING
    num_heads: int = MISSING
    patch_size: int = MISSING
    image_size: int = MISSING


@dataclass
class ModelConfig:
    """Architecture of pi0 / pi0.5. Everything here decides names or shapes of the state dict, or token counts."""

    pi05: bool = False
    vlm: GemmaConfig = field(default_factory=GemmaConfig)
    expert: GemmaConfig = field(default_factory=GemmaConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    vocab_size: int = MISSING
    action_dim: int = 32
    action_horizon: int = MISSING
    max_token_len: int = MISSING
    discrete_state_input: bool = False


@dataclass
class PolicyConfig:
    """How the model meets the robot: what it sees, how it is normalised, how much of a chunk is executed.

    `state_layout` is ``proprio`` (8-D, as RLinf's IsaacLab wrapper: end-effector position, axis-angle, gripper) or
    ``proprio+cubes`` (the same followed by cube poses, privileged information that only a simulator has).
    `tokenizer` is ``byte`` or the path of PaliGemma's SentencePiece model.
    `norm` is ``zscore``, ``quantile`` or ``auto`` (z-score for pi0, quantiles for pi0.5, as OpenPI).
    `delta_actions` names the action dims that the model learns relative to the state its chunk starts in, in the
    notation of OpenPI's ``make_bool_mask``: ``none``, or e.g. ``6,-1`` (6 relative, then 1 absolute; in quotes on the
    command line, because of the comma).
    """

    state_layout: str = "proprio"
    tokenizer: str = "byte"
    norm: str = "auto"
    delta_actions: str = "none"
    env_action_dim: int = 7
    action_chunk: int = MISSING
    denoise_steps: int = 10
    asset_id: str = "isaaclab_stack_cube"


@dataclass
class EnvConfig:
    """The stack-cube task. `backend`: ``mujoco``, whose `renderer` is ``egl``, ``rays`` (no GL) or ``auto`` (EGL where
    it works), on the CPU; or ``isaaclab`` (``newton`` or ``auto``; task ``stack3`` only), on ``compute.device``."""

    backend: str = "mujoco"
    task: str = "stack2"
    image_size: int = 200
    renderer: str = "auto"
    max_episode_steps: int = 600


@dataclass
class DemosConfig:
    """Scripted demonstrations. `noise` is the standard deviation of Gaussian noise added to the executed (not the
    recorded) action, in raw action units, so that the data shows recoveries under clean labels."""

    episodes: int = 100
    first_seed: int = 1000
    noise: float = 0.02
    workers: int = 2


@dataclass
class NormStatsConfig:
    """How norm stats are computed. `batch_size`: frames count in whole batches of this many and the partial last batch
    is left out, as OpenPI does, whose configs have 32 unless they say otherwise; 1 counts every frame."""

    batch_size: int = 32


@dataclass
class EvalConfig:
    """Evaluation. Seeds are `first_seed` .. `first_seed` + `episodes` - 1, the same for every checkpoint."""

    episodes: int = 50
    first_seed: int = 5000
    num_envs: int = 25
    policy_seed: int = 0
    videos: int = 4
    video_size: int = 256


@dataclass
class RlConfig:
    """Reinforcement learning of the flow policy, PPO or GRPO; names and defaults as RLinf's configs where it has them.

    Sampling: `exploration` is ``flow_sde`` (`noise_steps` random denoising steps of a call are stochastic, with
    `noise_level`; 1 as RLinf, 0 for all of them, which teaches more per episode and makes the update dearer) or
    ``flow_noise`` (all are, with a learned standard deviation between `noise_min` and `noise_max`).
    Rollouts: every iteration plays `episodes` new episodes in `num_envs` environments spread over `workers` processes;
    their seeds count up from `first_seed`. GRPO plays each seed `group_size` times.
    Reward: ``success``, or ``shaped``: `subtask_reward` more for each subtask when it is first reached.
    Update: `epochs` passes over the action chunks in minibatches of `minibatch` chunks. The value head steps after each
    of them, the policy after every `accumulate` of them with their mean gradient (0: once per epoch). `target_kl` ends
    the update of an iteration early; 0 never does. In the first `warmup_iterations` only the value head learns;
    then the policy's learning rate rises to `lr` over `lr_warmup` iterations.
    `eval_interval` iterations lie between evaluations of `eval_episodes` episodes from `eval_first_seed`, which never
    train and are none of the seeds that checkpoints are compared on.
    """

    algorithm: str = "ppo"
    exploration: str = "flow_sde"
    noise_level: float = 0.5
    noise_steps: int = 1
    noise_min: float = 0.08
    noise_max: float = 0.16
    iterations: int = 20
    episodes: int = 64
    num_envs: int = 32
    workers: int = 2
    first_seed: int = 1_000_000
    group_size: int = 8
    reward: str = "success"
    subtask_reward: float = 0.25
    gamma: float = 0.99
    gae_lambda: float = 0.95
    lr: float = 5e-6
    value_lr: float = 1e-4
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    clip_grad_norm: float = 1.0
    epochs: int = 3
    minibatch: int = 256
    accumulate: int = 1
    warmup_iterations: int = 0
    lr_warmup: int = 0
    clip_ratio: float = 0.2
    dual_clip: float = 3.0
    value_clip: float = 0.2
    huber_delta: float = 10.0
    entropy_bonus: float = 0.0
    target_kl: float = 0.0
    value_widths: list[int] = field(default_factory=lambda: [512, 256, 128])
    save_interval: int = 5
    eval_interval: int = 5
    eval_episodes: int = 50
    eval_first_seed: int = 500_000
    seed: int = 0


@dataclass
class ComputeConfig:
    """Where and how torch runs. `threads` 0 leaves torch's default; tiny models are fastest with 1.

    `dtype` is that of the parameters: ``float32``, or ``bfloat16`` as OpenPI mixes it (`pi0.precision`); not of `rl`,
    which is float32.
    `master_weights` trains bfloat16 parameters by float32 copies: next to a learning rate of 2.5e-5, bfloat16 alone
    rounds most updates away. OpenPI has no copies.
    `compile` is for CUDA devices: Triton kernels and CUDA graphs for inference, `torch.compile` for training; false
    takes the plain path, as every other device does.
    `num_processes` is on how many GPUs of this machine `sft` trains, or in how many processes on a CPU; torchrun sets
    it for several machines. With `sharding` ``replicate`` each holds the model, which is fastest (DDP); with ``shard``
    each holds its part of everything (FSDP2); ``auto`` takes copies where the estimate of the memory allows them.
    """

    device: str = "cpu"
    threads: int = 1
    dtype: str = "float32"
    master_weights: bool = True
    num_processes: int = 1
    sharding: str = "auto"
    compile: bool = True


@dataclass
class JobConfig:
    """Everything a job needs, under one preset name."""

    preset: str = MISSING
    model: ModelConfig = field(default_factory=ModelConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    demos: DemosConfig = field(default_factory=DemosConfig)
    norm_stats: NormStatsConfig = field(default_factory=NormStatsConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    rl: RlConfig = field(default_factory=RlConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
