"""The section ``rl`` of the job config: how reinforcement learning trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from rlinf_isaac.config.keep import KEEP
from rlinf_isaac.config.rules import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Rule, one_of
from rlinf_isaac.config.sft_schema import LoraConfig


def _is_prefix_memory(value: str) -> bool:
    if value in ("auto", "gpu", "host", "none"):
        return True
    try:
        return 0 <= float(value) < float("inf")
    except ValueError:
        return False


PREFIX_MEMORY = Rule("auto, gpu, host, none, or a number of GiB", _is_prefix_memory)


@dataclass
class RlConfig:
    """Reinforcement learning of the flow policy, PPO or GRPO. Names and defaults are RLinf's where its configs have the
    same value; where the name differs, the field says RLinf's."""

    algorithm: Annotated[str, one_of("ppo", "grpo")] = "ppo"
    """How advantages come about: PPO learns a value head and compares with it; GRPO compares the episodes that began
    with the same seed."""

    exploration: Annotated[str, one_of("flow_sde", "flow_noise")] = "flow_sde"
    """How the policy draws its actions (`pi0.flow_policy`): ``flow_sde`` adds noise of a fixed level to some denoising
    steps, ``flow_noise`` noise of a learned size to all of them."""

    noise_level: Annotated[float, POSITIVE] = 0.5
    """The factor a of flow-SDE's noise, a sqrt(t / (1 - t)) at the time t of the flow; RLinf's default."""

    noise_steps: Annotated[int, NOT_NEGATIVE] = 1
    """How many denoising steps of a policy call, drawn anew for each call, flow-SDE makes stochastic. RLinf has 1; 0
    stands for all of them, which teaches more per episode and makes the update dearer."""

    noise_min: Annotated[float, POSITIVE] = 0.08
    """The smallest standard deviation that flow-noise can learn, in the flow's normalised units; RLinf's default."""

    noise_max: Annotated[float, POSITIVE] = 0.16
    """The largest standard deviation that flow-noise can learn; it must exceed `noise_min`. RLinf's default."""

    iterations: Annotated[int, POSITIVE] = 20
    """How many times the policy plays and is then updated."""

    episodes: Annotated[int, POSITIVE] = 64
    """How many episodes are played in each iteration. For GRPO it is a multiple of `group_size`."""

    num_envs: Annotated[int, POSITIVE] = 32
    """How many environments play side by side, in all workers of all processes together; a multiple of their number."""

    workers: Annotated[int, POSITIVE] = 2
    """How many processes play and compute gradients on a CPU, for every process that trains. With 1 it does so itself,
    as always on a GPU, where ``compute.env_processes`` says how many processes simulate."""

    first_seed: Annotated[int, NOT_NEGATIVE] = 1_000_000
    """The first seed of the episodes that train. Every further episode, or group of GRPO, has the next number."""

    group_size: Annotated[int, Rule("2 or more", lambda x: x >= 2)] = 8
    """How many episodes of GRPO begin with the same seed."""

    reward: Annotated[str, one_of("success", "shaped")] = "success"
    """What an episode earns: 1 for success, or that and `subtask_reward` for each subtask when it is first reached."""

    subtask_reward: Annotated[float, NOT_NEGATIVE] = 0.25
    """The reward of a subtask, where `reward` is ``shaped``; success earns 1."""

    gamma: Annotated[float, SHARE] = 0.99
    """PPO's discount of a reward, per action chunk that lies between; RLinf's default."""

    gae_lambda: Annotated[float, SHARE] = 0.95
    """The lambda of generalised advantage estimation: 0 trusts the value head, 1 the rewards that came. RLinf's
    default."""

    trainable: Annotated[str, one_of("expert", "lora", "all")] = "expert"
    """Which parameters of the policy train: the action expert's alone (the VLM is frozen, so every observation goes
    through it only once), low-rank adapters of both transformers, or all; with the meaning of ``sft.trainable``."""

    train_vision: bool = False
    """Whether the vision tower trains, too, where `trainable` is ``lora`` or ``all``."""

    lora: LoraConfig = field(default_factory=LoraConfig)
    """The adapters, where `trainable` is ``lora``."""

    lr: Annotated[float, POSITIVE] = 5e-6
    """The learning rate of the policy (AdamW), once `lr_warmup` is over."""

    value_lr: Annotated[float, POSITIVE] = 1e-4
    """The learning rate of the value head."""

    weight_decay: Annotated[float, NOT_NEGATIVE] = 0.0
    """How strongly AdamW shrinks the weights that train: in each step by this times the learning rate."""

    beta1: Annotated[float, BELOW_ONE] = 0.9
    """AdamW's decay of the mean gradient, per step."""

    beta2: Annotated[float, BELOW_ONE] = 0.95
    """AdamW's decay of the mean squared gradient, per step."""

    clip_grad_norm: Annotated[float, POSITIVE] = 1.0
    """The largest norm of a gradient; a longer one is shortened to it, the policy's and the value head's each for
    itself."""

    epochs: Annotated[int, POSITIVE] = 3
    """How many times an update goes over the action chunks of its iteration (RLinf: ``update_epoch``)."""

    minibatch: Annotated[int, POSITIVE] = 256
    """How many action chunks one minibatch has, in all processes together; the value head steps after each
    minibatch."""

    micro_batch: Annotated[int, NOT_NEGATIVE] = 0
    """How many action chunks of its part of a minibatch a GPU computes at a time, to need less memory; 0 takes as many
    as its free memory is estimated to hold."""

    prefix_memory: Annotated[str, PREFIX_MEMORY] = "auto"
    """Where the keys and values of the observations stay between rollout and update while the VLM is frozen: ``gpu``,
    ``host`` (pinned memory), that many GiB on the GPU and the rest on the host, or ``none``: they are computed again
    from the images in every epoch. ``auto`` takes the first of gpu, host and none that has room."""

    rescore: Annotated[str, one_of("auto", "always", "never")] = "auto"
    """Whether log-probabilities and values of the rollout are computed once more before the update, by the kernels that
    compute its gradients, so that the probability ratios begin at 1. ``auto`` does it where these kernels differ from
    those that sampled: on a GPU."""

    accumulate: Annotated[int, NOT_NEGATIVE] = 1
    """How many minibatches the policy waits before it steps by their mean gradient; 0 is all of an epoch."""

    warmup_iterations: Annotated[int, NOT_NEGATIVE] = 0
    """In how many iterations at the beginning only the value head learns (RLinf: ``critic_warmup_steps``)."""

    lr_warmup: Annotated[int, NOT_NEGATIVE] = 0
    """Over how many iterations the policy's learning rate then rises to `lr`; 0 begins with it."""

    clip_ratio: Annotated[float, Rule("between 0 and 1", lambda x: 0 < x < 1)] = 0.2
    """PPO's clip: a chunk's probability counts only as far as it has changed by this share since it was played (arXiv
    1707.06347; RLinf's default)."""

    dual_clip: Annotated[float, Rule("greater than 1", lambda x: x > 1)] = 3.0
    """The second clip, for bad chunks: one costs at most this many times its advantage, so that a single improbable
    chunk cannot dominate (arXiv 1912.09729; RLinf: ``clip_ratio_c``)."""

    value_clip: Annotated[float, POSITIVE] = 0.2
    """How far a value may move in one update before the move stops paying, in units of reward; RLinf's default."""

    huber_delta: Annotated[float, POSITIVE] = 10.0
    """The error of a value, in units of reward, from which its loss grows linearly instead of quadratically; RLinf's
    default."""

    entropy_bonus: Annotated[float, NOT_NEGATIVE] = 0.0
    """The weight of the policy's entropy in the loss: more keeps the exploration wider. It acts on flow-noise, whose
    noise is learned."""

    target_kl: Annotated[float, NOT_NEGATIVE] = 0.0
    """The KL divergence (nats) of the policy from the one that played at which the update of an iteration ends early; 0
    never ends it."""

    value_widths: Annotated[list[int], Rule("positive widths", lambda x: all(width > 0 for width in x))] = field(
        default_factory=lambda: [512, 256, 128]
    )
    """The widths of the value head's hidden layers; RLinf's."""

    save_interval: Annotated[int, POSITIVE] = 5
    """How many iterations lie between checkpoints; the last iteration always leaves one."""

    keep: Annotated[str, KEEP] = "all"
    """As `sft.keep`. What a roll-back would go to stays, and so does the best, which is the result."""

    eval_interval: Annotated[int, NOT_NEGATIVE] = 5
    """How many iterations lie between evaluations on held-out seeds, of which one comes before the first and one after
    the last iteration; 0 never evaluates."""

    eval_episodes: Annotated[int, POSITIVE] = 50
    """How many episodes such an evaluation plays, without exploration."""

    eval_first_seed: Annotated[int, NOT_NEGATIVE] = 500_000
    """The first seed of those episodes. They never train, and checkpoints are not compared on them."""

    seed: Annotated[int, NOT_NEGATIVE] = 0
    """The seed of everything that is drawn in training: exploration, minibatches, new heads."""

    guard: bool = True
    """Whether a training that ruins its policy goes back to an earlier checkpoint (`engines.local.rl.guard`). Without
    the guard it goes on, and a loss that is not finite fails it."""

    guard_kl: Annotated[float, POSITIVE] = 10.0
    """The KL divergence (nats) of the policy after an update from the one that played, from which the guard takes the
    policy for ruined."""

    guard_clip_fraction: Annotated[float, POSITIVE] = 1.0
    """The share of an update's chunks that are clipped above which the guard takes the policy for ruined; 1 never does.
    A policy that learns in several epochs clips many chunks without harm."""

    max_rollbacks: Annotated[int, NOT_NEGATIVE] = 3
    """How often the guard goes back. After that a collapse ends the training, and the best checkpoint is its result."""

    rollback_lr_factor: Annotated[float, Rule("greater than 0, and at most 1", lambda x: 0 < x <= 1)] = 0.5
    """The factor by which each roll-back multiplies the learning rate of the policy."""

    target_success: Annotated[float, BELOW_ONE] = 0.0
    """The success rate for which training forecasts when it will be reached; 0 forecasts 80 % and 90 %."""

    stop_at_target: bool = False
    """Whether training ends once the held-out success is above `target_success` with 95 % confidence, corrected for the
    number of evaluations."""
