"""pi0 as an RLinf model: `rlinf_isaac.pi0.model.Pi0`, whose weights are OpenPI's, with RLinf's methods.

The norm stats, the tokenizer and the transforms of the bundle go with the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from rlinf.models.embodiment.base_policy import BasePolicy, ForwardType

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.foreign.load_base import load_base
from rlinf_isaac.checkpoint.trained_with import NormStatsFile
from rlinf_isaac.config import build_config
from rlinf_isaac.config.schema import JobConfig, ModelConfig
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.exploration import act_exploring, evaluated_again, exploration_draws
from rlinf_isaac.engines.local.sft.batches import TrainingBatch
from rlinf_isaac.engines.local.sft.update import flow_loss
from rlinf_isaac.engines.policies import load_with_heads
from rlinf_isaac.envs.stack_cube.contract import TASKS
from rlinf_isaac.pi0.compiled import checkpoint_activations
from rlinf_isaac.pi0.flow_policy import FlowActorCritic, Transitions
from rlinf_isaac.pi0.model import Pi0, initialise
from rlinf_isaac.pi0.policy import Pi0Policy, Processor, episode_noise
from rlinf_isaac.pi0.tokenizer import load_tokenizer

STREAM = 5
"""Keeps the random numbers of exploration apart from those of other purposes under the same seed."""


def build_policy(cfg: Any, torch_dtype: Any) -> RlinfPi0:
    """RLinf's model builder: the bundle at ``cfg.model_path``, strictly loaded; else the base at ``cfg.base``, or new
    weights."""
    job = build_config(OmegaConf.to_container(cfg.job, resolve=True), "the job")
    policy = RlinfPi0(job, explore=cfg.add_value_head)
    checkpoint_activations(policy, job.sft.activation_checkpointing)
    if cfg.model_path is None:
        initialise(policy, job.sft.seed)
        if cfg.get("base") is not None:
            load_base(Path(cfg.base), policy, job.model, job.sft.fresh)
    else:
        policy.load_bundle(Path(cfg.model_path))
    return policy


class TiedModelConfig(ModelConfig):
    """Tells RLinf's FSDP that the embedding is shared with the head, and must not become a unit of its own."""

    tie_word_embeddings = True


class RlinfPi0(Pi0, BasePolicy):
    """pi0 with its pre- and post-processing. Parameters have the names of OpenPI's state dict.

    Args:
        job: what the policy is and how it is trained.
        explore: give it the heads that reinforcement learning needs; the VLM is frozen then.
    """

    def __init__(self, job: JobConfig, *, explore: bool = False) -> None:
        super().__init__(TiedModelConfig(**vars(job.model)))
        self.job = job
        self.processor: Processor | None = None
        self.mode = "eval"
        if explore:
            flow = FlowActorCritic(self, job.policy, job.rl)
            for name, head in flow.heads.items():
                self.add_module(name, head)
            # Beside the modules, not among them: it holds this one.
            object.__setattr__(self, "_flow", flow)

    @property
    def flow(self) -> FlowActorCritic:
        """The stochastic policy over these parameters, where the policy explores."""
        flow = self.__dict__["_flow"]
        for name, buffer in flow.named_buffers(recurse=False):
            setattr(flow, name, buffer.to(self._device))
        return flow

    def load_bundle(self, path: Path, norm_stats: Path | None = None) -> None:
        """Take over the weights of a bundle in place, and its norm stats unless others are given.

        Heads that the bundle does not have, or has in another shape, stay as they are.

        Raises:
            BundleError, WeightsError: the bundle is damaged, or does not fill the model completely.
        """
        bundle = read_bundle(path)
        load_with_heads(bundle, self)
        data, origin = bundle.norm_stats_bytes, path
        if norm_stats is not None:
            data, origin = NormStatsFile.read(norm_stats).data, norm_stats
        tokenizer = load_tokenizer(self.job.policy, self.job.model)
        self.processor = Processor(self.job.model, self.job.policy, from_json(data, str(origin)), tokenizer)

    def forward(  # type: ignore[override]
        self, forward_type: ForwardType = ForwardType.DEFAULT, **kwargs: Any
    ) -> Any:
        """One of RLinf's forward passes, whose arguments are not those of `Pi0.forward`."""
        if forward_type is ForwardType.DEFAULT:
            return self.default_forward(**kwargs)
        if forward_type is ForwardType.SFT:
            return self.sft_forward(**kwargs)
        raise NotImplementedError(f"pi0 has no {forward_type}")

    def sft_forward(self, data: TrainingBatch, **kwargs: Any) -> torch.Tensor:
        """The flow-matching loss of a batch, a scalar."""
        return flow_loss(super().forward(*data.on(self._device)), self.job)

    def default_forward(self, forward_inputs: dict[str, torch.Tensor], **kwargs: Any) -> dict[str, torch.Tensor]:
        """Log-probabilities (B, 7), whose sum is that of the chunk, and values (B, 1) of `forward_inputs` as
        `predict_action_batch` gave them."""
        assert self.processor is not None
        prompts = [TASKS[self.job.env.task].prompt] * len(forward_inputs["state"])
        images = {view: forward_inputs[view].cpu().numpy() for view in ("front", "wrist")}
        states = forward_inputs["state"].cpu().numpy()
        transitions = Transitions(*(forward_inputs[name] for name in Transitions._fields))
        scored = evaluated_again(self.flow, self.processor, images, states, prompts, transitions)
        return {
            "logprobs": self._spread(scored.log_prob),
            "values": scored.value[:, None],
            "entropy": scored.entropy[:, None],
        }

    def predict_action_batch(
        self, env_obs: dict[str, Any], **kwargs: Any
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor | dict[str, torch.Tensor]]]:
        """Action chunks (N, chunk, 7) for RLinf's observations (`env.RlinfStackCube`).

        In the mode ``train`` they explore, and what PPO needs comes with them.
        """
        assert self.processor is not None
        keys = env_obs["extra_view_images"][:, 0].tolist()
        images = {"front": env_obs["main_images"].numpy(), "wrist": env_obs["wrist_images"].numpy()}
        states, prompts = env_obs["states"].numpy(), env_obs["task_descriptions"]
        if self.mode == "train":
            return self._explore(images, states, prompts, keys)
        if all(seed < 0 for seed, _ in keys):  # every episode has ended; RLinf goes on to the end of its epoch
            return torch.zeros(len(keys), self.job.policy.action_chunk, self.job.policy.env_action_dim), {}
        policy = Pi0Policy(self, self.processor, self.job.policy, self._device)
        seed = self.job.eval.policy_seed
        known = [(episode, call) if episode >= 0 else (0, 0) for episode, call in keys]
        noise = [episode_noise(seed, episode, call, policy.noise_shape) for episode, call in known]
        return torch.from_numpy(policy.act(images, states, prompts, np.stack(noise))), {}

    def _explore(
        self, images: dict[str, np.ndarray], states: np.ndarray, prompts: list[str], keys: list[list[int]]
    ) -> tuple[torch.Tensor, dict[str, Any]]:
        assert self.processor is not None
        flow = self.flow
        # A slot without an episode: any randomness will do.
        known = [(episode, call) if episode >= 0 else (0, 0) for episode, call in keys]
        draws = exploration_draws(flow, [(STREAM, *key) for key in known])
        chunk, transitions, scored = act_exploring(flow, self.processor, images, states, prompts, draws)
        seen = {view: torch.from_numpy(image) for view, image in images.items()} | {"state": torch.from_numpy(states)}
        return torch.from_numpy(chunk), {
            "prev_logprobs": self._spread(scored.log_prob),
            "prev_values": scored.value[:, None],
            "forward_inputs": seen | transitions._asdict(),
        }

    def _spread(self, log_prob: torch.Tensor) -> torch.Tensor:
        """(B,) as (B, 7): RLinf adds up over action dims. Zeros change no bit of the sum."""
        return torch.nn.functional.pad(log_prob[:, None], (0, self.job.policy.env_action_dim - 1))

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device
