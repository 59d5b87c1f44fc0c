"""The policy of a verified bundle, as the evaluation runs it, for requests that come one by one or in any batch.

Bit by bit the same actions for the same observation and noise, whoever else asks at the same time and however many
are answered together. Two things could break that, and both are kept out:

- torch picks its kernels by the shape of a batch, and another kernel rounds differently. So only batch sizes are used
  whose rows were measured, when the policy was loaded, to equal those of the evaluation's batch (`exact_sizes`), which
  has ``eval.num_envs`` rows by the config of the checkpoint; a smaller batch is filled up with copies.
- prompts are padded to the longest of the batch. So a batch has one prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from mlflow_project.serving.observation import VIEWS, NoiseKey, ObservationSpec, Request
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.checkpoint.facts import assumed, recorded, spell
from rlinf_isaac.checkpoint.trained_with import serving_mismatches
from rlinf_isaac.config import build_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.policies import load_policy
from rlinf_isaac.ground.errors import InvalidJob, ObservationError
from rlinf_isaac.pi0.policy import Pi0Policy, episode_noise

Exact = Literal["auto", "true", "false"]


class ServedPolicy:
    """Answers requests with action chunks.

    Args:
        bundle: verified.
        config: the job the checkpoint carries, with this machine's device.
        max_batch: most requests in one call of the model.
        exact: whether actions must be those of the evaluation bit by bit; ``auto``: on the CPU. Elsewhere a batch of
            the evaluation's size is usually the only one that rounds like it, and every request would pay for it.
        any_prompt: take prompts that the training did not have.

    Raises:
        ValueError: the bundle was not verified.
        InvalidJob: its weights do not fill the model, this machine's tokenizer is not the one of the training,
            something of the training is not known, or the device cannot be exact.
    """

    def __init__(
        self, bundle: Bundle, config: JobConfig, *, max_batch: int = 8, exact: Exact = "auto", any_prompt: bool = False
    ) -> None:
        if not bundle.verified:
            raise ValueError(f"{bundle.path} was read without hashing its weights")
        if problems := serving_mismatches(bundle, config):
            raise InvalidJob(problems)
        if config.compute.threads:  # for the whole process, as in the evaluation: it decides bits, too
            torch.set_num_threads(config.compute.threads)
        self.bundle, self.config, self.max_batch = bundle, config, max_batch
        self.policy = load_policy(bundle, config)
        self.spec = observation_spec(bundle, config, any_prompt=any_prompt)
        self.exact = config.compute.device == "cpu" if exact == "auto" else exact == "true"
        self.sizes = _powers_up_to(max_batch)
        if self.exact:
            reference = min(config.eval.num_envs, config.eval.episodes)
            largest = max(max_batch, reference)
            self.sizes = exact_sizes(self.policy, self.spec, _powers_up_to(largest), reference)
        if self.policy.compiled:  # before the first request, so that it is answered as fast as the others
            for size in self.sizes:
                act(self.policy, [_probe(self.policy, self.spec, (0, 0, 0))], size)

    def infer(self, requests: Sequence[Request]) -> np.ndarray:
        """Action chunks (N, chunk, action dims) float32 in robot units, in the order of the requests.

        Raises:
            ObservationError: the actions for one of the requests are not finite.
            TokenizerError: one of the prompts is too long.
        """
        actions = np.empty(
            (len(requests), self.config.policy.action_chunk, self.config.policy.env_action_dim), np.float32
        )
        by_prompt: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            by_prompt.setdefault(request.prompt, []).append(index)
        largest = min(self.max_batch, max(self.sizes))
        for indices in by_prompt.values():
            for start in range(0, len(indices), largest):
                rows = indices[start : start + largest]
                size = next(size for size in self.sizes if size >= len(rows))
                actions[rows] = act(self.policy, [requests[row] for row in rows], size)
        if not np.isfinite(actions).all():
            cause = "the policy's actions for this observation are not finite"
            raise ObservationError.of("actions-not-finite", cause, "look at the state: is it in robot units?")
        return actions

    def metadata(self) -> dict[str, Any]:
        """What clients are told: what the policy is, what it takes and what it gives."""
        policy = self.config.policy
        return {
            "checkpoint": self.bundle.digest,
            "step": self.bundle.step,
            "preset": self.config.preset,
            "image_size": self.spec.image_size,
            **announced(self.bundle),
            "state_names": list(self.spec.state_names),
            "action_horizon": policy.action_chunk,
            "batch_sizes": list(self.sizes),
            "exact": self.exact,
            "warmup_seconds": round(self.policy.warmup_seconds, 1),
        }


def announced(bundle: Bundle) -> dict[str, Any]:
    """What clients are told of the training, as it is recorded or assumed; null for what is neither."""
    return {
        "prompts": list((bundle.config.get("prompts") or {}).values()),
        "control_hz": recorded(bundle, "control_hz", "control_hz"),
        "state_names": recorded(bundle, "state", "state_names"),
        "action_names": recorded(bundle, "actions", "action_names"),
        "images": recorded(bundle, "images", "images"),
        "assumed": {fact: spell(value) for fact, value in assumed(bundle).items()},
    }


def serving_config(bundle: Bundle, device: str = "cpu") -> JobConfig:
    """The job that the bundle carries, on `device`.

    Raises:
        InvalidJob: it carries none, or one that this release does not understand.
    """
    return build_config(bundle.job, f"{bundle.path}/config.json", [f"compute.device={device}"])


def observation_spec(bundle: Bundle, config: JobConfig, *, any_prompt: bool = False) -> ObservationSpec:
    """What the policy of a bundle takes. A dim that has no name, and that nobody assumes one for, is called by its
    number."""
    dims = len(from_json(bundle.norm_stats_bytes, str(bundle.path)).state.mean)
    names = recorded(bundle, "state", "state_names") or [str(index) for index in range(dims)]
    prompts = (bundle.config.get("prompts") or {}).values()
    return ObservationSpec(config.model.vision.image_size, tuple(names), tuple(prompts), any_prompt)


def act(policy: Pi0Policy, requests: Sequence[Request], size: int) -> np.ndarray:
    """Action chunks of requests with one prompt, from a batch of `size` rows: the last request fills it up."""
    rows = [*requests, *[requests[-1]] * (size - len(requests))]
    actions = policy.act(
        {view: np.stack([row.images[view] for row in rows]) for view in VIEWS},
        np.stack([row.state for row in rows]),
        [row.prompt for row in rows],
        np.stack([episode_noise(*row.noise_key, policy.noise_shape) for row in rows]),
    )
    return actions[: len(requests)]


def exact_sizes(policy: Pi0Policy, spec: ObservationSpec, candidates: Sequence[int], reference: int) -> tuple[int, ...]:
    """`reference`, and those of the batch sizes whose rows equal, bit by bit, those of a batch of `reference` rows.

    Measured with random observations: which kernel runs depends on the shapes, not on the values.

    Raises:
        InvalidJob: not even the same batch gives the same bits twice.
    """
    probes = [_probe(policy, spec, (0, 0, row)) for row in range(reference)]
    wanted = act(policy, probes, reference)
    sizes = sorted({*candidates, reference})
    exact = [size for size in sizes if np.array_equal(act(policy, probes[:size], size), wanted[:size])]
    if reference not in exact:
        cause = f"on {policy.device} the same observations and noise do not give the same actions twice"
        raise InvalidJob.of("not-reproducible", cause, "serve with --exact false, or on the CPU")
    return tuple(exact)


def _powers_up_to(most: int) -> tuple[int, ...]:
    """1, 2, 4, ... and `most`."""
    return (*(2**k for k in range(most.bit_length()) if 2**k < most), most)


def _probe(policy: Pi0Policy, spec: ObservationSpec, key: NoiseKey) -> Request:
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))
    shape = (spec.image_size, spec.image_size, 3)
    images = {view: random.integers(0, 256, shape, dtype=np.uint8) for view in VIEWS}
    state = policy.processor.state_normalizer.unnormalize(random.standard_normal(len(spec.state_names)))
    return Request(images, state, spec.prompts[0], key)
