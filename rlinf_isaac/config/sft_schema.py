"""The section ``sft`` of the job config: how a fine-tuning trains."""

from __future__ import annotations

from dataclasses import dataclass, field

from omegaconf import MISSING

BATCHES_AHEAD = 2
"""Batches that each loader process of a training has ready or at work."""


@dataclass
class AugmentConfig:
    """Random changes of the training images (`pi0.augmentation`); by default none.

    `crop` is the side of the part of the view that is kept, 1 being all of it; `rotation_deg` and `shift` (a part of
    the side) are the most in either direction. Cameras on the wrist are neither cropped nor turned. Colours are
    multiplied by factors of 1 +- `brightness`, `contrast`, `saturation`. OpenPI: 0.95, 5, no shift, 0.3, 0.4, 0.5."""

    crop: float = 1.0
    rotation_deg: float = 0.0
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0


@dataclass
class LoraConfig:
    """Low-rank adapters (`pi0.lora`) of the VLM's language model and of the action expert: of each matrix's change only
    `rank` dimensions train, scaled by `alpha` / `rank`. Defaults: OpenPI's ``gemma_2b_lora``, ``gemma_300m_lora``."""

    vlm_rank: int = 16
    vlm_alpha: float = 16.0
    expert_rank: int = 32
    expert_alpha: float = 32.0


@dataclass
class SftConfig:
    """Supervised fine-tuning with the flow-matching loss. Learning rate: linear warm-up, then cosine down to
    `final_lr_ratio` x `lr` at step `decay_steps` (0: at the last), where it stays. `loss_on_real_dims` leaves the
    padded action dims out of the loss (RLinf: ``use_action_chunk_loss``). `flow_samples` is how many (noise, time)
    points of the flow each sample of the batch contributes to a step; images and prompt are encoded once for all of
    them. OpenPI has 1.

    For less memory: `micro_batch` samples at a time go forward and backward, and their gradients add up to the batch's
    (0: all at once); `activation_checkpointing` computes the inside of every layer again when its gradient is due.

    `loader_workers` is how many processes load batches, for every process that trains; 0 leaves it to a thread of that
    process, which is enough as long as ``time/data_wait`` is small. They hand batches over in shared memory, share the
    memory for decoded images, and change no byte of what is trained.

    `mix` has a weight for each of several datasets: the shares of the frames that are drawn from them. Without weights
    they are in proportion to the datasets' frames (`data.mixture`).

    `trainable` is ``all``, ``expert`` (the VLM is frozen) or ``lora`` (both transformers are, beside their adapters);
    `train_vision` false freezes the vision tower, too. `pi0.trainable` has the parameters by name. With `ema_decay`
    above 0 checkpoints hold an exponential average of the weights, 0.99 in OpenPI's JAX training; `evaluate_raw` writes
    the weights themselves as checkpoints as well, into ``checkpoints-raw`` beside the others.

    `val_episodes` episodes are held out of the training, which ones is decided by `seed`. After every `val_interval`
    steps (0: at every checkpoint) `val_frames` of their frames give ``val/loss`` and ``val/action_mse``, and every
    checkpoint a picture of predicted beside recorded actions. Every `eval_interval` steps, a multiple of
    `save_interval`, the checkpoint plays `eval_episodes` episodes from `eval_first_seed` on, none of the seeds that
    checkpoints are compared on; 0 never does.

    With a base, all parameters are its own but those whose names match a pattern of `fresh` (``state_proj.*``): they
    begin with random values, whatever the base has for them."""

    steps: int = MISSING
    fresh: list[str] = field(default_factory=list)
    batch_size: int = 32
    flow_samples: int = 1
    micro_batch: int = 0
    activation_checkpointing: bool = False
    lr: float = 1e-3
    warmup_steps: int = 100
    final_lr_ratio: float = 0.02
    decay_steps: int = 0
    weight_decay: float = 1e-4
    beta1: float = 0.9
    beta2: float = 0.95
    clip_grad_norm: float = 1.0
    trainable: str = "all"
    train_vision: bool = True
    lora: LoraConfig = field(default_factory=LoraConfig)
    ema_decay: float = 0.0
    evaluate_raw: bool = False
    loss_on_real_dims: bool = True
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    loader_workers: int = 0
    mix: list[float] = field(default_factory=list)
    save_interval: int = MISSING
    log_interval: int = 20
    val_episodes: int = 0
    val_frames: int = 256
    val_interval: int = 0
    eval_interval: int = 0
    eval_episodes: int = 20
    eval_first_seed: int = 500_000
    seed: int = 0
