"""The section ``sft`` of the job config: how a fine-tuning trains."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from omegaconf import MISSING

from rlinf_isaac.config.keep import KEEP
from rlinf_isaac.config.rules import BELOW_ONE, NOT_NEGATIVE, POSITIVE, SHARE, Rule, one_of

BATCHES_AHEAD = 2
"""Batches that each loader process of a training has ready or at work."""


@dataclass
class AugmentConfig:
    """Random changes of the training images (`pi0.augmentation`); by default none. Every image draws its own."""

    crop: Annotated[float, Rule("greater than 0, and 1 for all of the view", lambda x: 0 < x <= 1)] = 1.0
    """The side of the part of the view that is kept, as a share of the view's; OpenPI's is 0.95. Cameras on the wrist
    are not cropped."""

    rotation_deg: Annotated[float, NOT_NEGATIVE] = 0.0
    """The largest rotation in either direction, in degrees; OpenPI's is 5. Cameras on the wrist are not turned."""

    shift: Annotated[float, BELOW_ONE] = 0.0
    """The largest shift in either direction, as a share of the side; OpenPI has none."""

    brightness: Annotated[float, BELOW_ONE] = 0.0
    """Brightness is multiplied by a factor of 1 +- this; OpenPI's is 0.3."""

    contrast: Annotated[float, BELOW_ONE] = 0.0
    """Contrast is multiplied by a factor of 1 +- this; OpenPI's is 0.4."""

    saturation: Annotated[float, SHARE] = 0.0
    """Saturation is multiplied by a factor of 1 +- this; OpenPI's is 0.5."""


@dataclass
class LoraConfig:
    """Low-rank adapters (`pi0.lora`) of the VLM's language model and of the action expert."""

    vlm_rank: Annotated[int, POSITIVE] = 16
    """How many dimensions of the change of each of the VLM's matrices train; OpenPI's ``gemma_2b_lora``."""

    vlm_alpha: Annotated[float, POSITIVE] = 16.0
    """The VLM's adapters are scaled by this / `vlm_rank`; OpenPI's ``gemma_2b_lora``."""

    expert_rank: Annotated[int, POSITIVE] = 32
    """How many dimensions of the change of each of the expert's matrices train; OpenPI's ``gemma_300m_lora``."""

    expert_alpha: Annotated[float, POSITIVE] = 32.0
    """The expert's adapters are scaled by this / `expert_rank`; OpenPI's ``gemma_300m_lora``."""


@dataclass
class SftConfig:
    """Supervised fine-tuning with the flow-matching loss. The learning rate rises linearly, then falls as a cosine."""

    steps: Annotated[int, POSITIVE] = MISSING
    """How many optimiser steps the training has."""

    fresh: list[str] = field(default_factory=list)
    """Patterns of names (``state_proj.*``) of parameters that begin with random values, whatever the base has for them;
    all others are the base's own."""

    batch_size: Annotated[int, POSITIVE] = 32
    """How many samples one optimiser step learns from, in all processes together; OpenPI's default."""

    flow_samples: Annotated[int, POSITIVE] = 1
    """How many (noise, time) points of the flow each sample contributes to a step; images and prompt are encoded once
    for all of them. OpenPI has 1."""

    micro_batch: Annotated[int, NOT_NEGATIVE] = 0
    """How many samples go forward and backward at a time, in one process; their gradients add up to the batch's. Fewer
    need less memory; 0 takes all at once."""

    activation_checkpointing: bool = False
    """Whether the inside of every layer is computed again when its gradient is due; it saves memory and costs time."""

    lr: Annotated[float, POSITIVE] = 1e-3
    """The learning rate at its highest (AdamW), after the warm-up."""

    warmup_steps: Annotated[int, NOT_NEGATIVE] = 100
    """Over how many steps the learning rate rises to `lr`."""

    final_lr_ratio: Annotated[float, SHARE] = 0.02
    """What the learning rate falls to, as a share of `lr`; there it stays."""

    decay_steps: Annotated[int, NOT_NEGATIVE] = 0
    """The step at which the learning rate has fallen, the warm-up counted in; 0 is the last step."""

    weight_decay: Annotated[float, NOT_NEGATIVE] = 1e-4
    """How strongly AdamW shrinks all weights that train: in each step by this times the learning rate."""

    beta1: Annotated[float, BELOW_ONE] = 0.9
    """AdamW's decay of the mean gradient, per step; OpenPI's default."""

    beta2: Annotated[float, BELOW_ONE] = 0.95
    """AdamW's decay of the mean squared gradient, per step; OpenPI's default."""

    clip_grad_norm: Annotated[float, POSITIVE] = 1.0
    """The largest norm of a step's gradient; a longer one is shortened to it. OpenPI's default."""

    trainable: Annotated[str, one_of("all", "expert", "lora")] = "all"
    """Which parameters train: all, the action expert's alone (the VLM is frozen), or low-rank adapters of both
    transformers. `pi0.trainable` has the parameters by name."""

    train_vision: bool = True
    """Whether the vision tower trains, too, where `trainable` is ``all`` or ``lora``."""

    lora: LoraConfig = field(default_factory=LoraConfig)
    """The adapters, where `trainable` is ``lora``."""

    ema_decay: Annotated[float, BELOW_ONE] = 0.0
    """Per step, the decay of the exponential average of the weights that checkpoints then hold (OpenPI's JAX training:
    0.99); 0 keeps no average."""

    evaluate_raw: bool = False
    """Whether, beside averages, the weights themselves are written as checkpoints, too, into ``checkpoints-raw``."""

    loss_on_real_dims: bool = True
    """Whether the padded action dims stay out of the loss (RLinf: ``use_action_chunk_loss``); OpenPI counts them."""

    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes of the training images."""

    loader_workers: Annotated[int, NOT_NEGATIVE] = 0
    """How many processes load batches, for every process that trains; they change no byte of what is trained. 0 leaves
    it to a thread, which is enough as long as ``time/data_wait`` is small."""

    mix: list[float] = field(default_factory=list)
    """A weight for each of several datasets: the shares of the frames that are drawn from them (`data.mixture`).
    Without weights they are in proportion to the datasets' frames."""

    save_interval: Annotated[int, POSITIVE] = MISSING
    """How many steps lie between checkpoints; the last step always leaves one."""

    keep: Annotated[str, KEEP] = "all"
    """Which checkpoints stay on disk while training goes on: all, or words such as ``last:2,best:1,every:10000``. The
    newest always stays, and so does one that is registered, evaluated or trained on (docs/long_runs.md)."""

    log_interval: Annotated[int, POSITIVE] = 20
    """How many steps lie between records of the loss; each is the mean of these steps."""

    val_episodes: Annotated[int, NOT_NEGATIVE] = 0
    """How many episodes, which `seed` decides, are held out of the training for validation; 0 validates nothing."""

    val_frames: Annotated[int, POSITIVE] = 256
    """On how many frames of the held-out episodes ``val/loss`` and ``val/action_mse`` are measured."""

    val_interval: Annotated[int, NOT_NEGATIVE] = 0
    """How many steps lie between those measurements; 0 measures at every checkpoint."""

    eval_interval: Annotated[int, NOT_NEGATIVE] = 0
    """How many steps, a multiple of `save_interval`, lie between checkpoints that play episodes; 0 never plays."""

    eval_episodes: Annotated[int, POSITIVE] = 20
    """How many episodes such a checkpoint plays."""

    eval_first_seed: Annotated[int, NOT_NEGATIVE] = 500_000
    """The first seed of those episodes; checkpoints are not compared on them."""

    seed: Annotated[int, NOT_NEGATIVE] = 0
    """The seed of all that is drawn in training: new weights, batches, noise, augmentation, held-out episodes."""
