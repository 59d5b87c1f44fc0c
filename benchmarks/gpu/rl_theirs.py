"""Reinforcement learning by RLinf's own actor, as it ships: eager, three cameras encoded, the expert trains.

Two times are given for each part. "model alone" has its inputs on the GPU already, in the form that the model wants;
"as its worker calls it" begins with the environment's images, which RLinf copies to the CPU, transforms row by row in
eight threads and converts to float there in an update. OpenPI's resizing, normalisation and tokenisation are left out
of it (`actor`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import actor
import torch
import upstream
from measure import DEVICE, HORIZON, STEPS, TINY, observation, timed
from stages import Row, milliseconds

ROLLOUT, UPDATE = (2,) if TINY else (16, 64), (2,) if TINY else (32, 64, 128)


def rows(preset: str) -> Iterator[Row]:
    """A rollout call, and an update: log-probabilities and values, RLinf's PPO losses, backward, clipping, AdamW."""
    model = actor.load(preset)
    yield from _rollouts(model, preset)
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=5e-6, betas=(0.9, 0.95), eps=1e-5, weight_decay=1e-2)
    for batch in UPDATE:
        try:
            yield from _update(model, optimiser, preset, batch)
        except torch.cuda.OutOfMemoryError:
            yield Row(f"{preset} RL rlinf update {batch}", float("nan"), "ms", "does not fit into the GPU's memory")
            return


def _rollouts(model: torch.nn.Module, preset: str) -> Iterator[Row]:
    model.eval()
    for batch in ROLLOUT:
        seen = actor.environment_observation(batch)
        ready = upstream.as_upstream(_inputs(preset, batch))

        def alone(ready: Any = ready) -> None:
            model.sample_actions(ready, mode="train")

        def called(seen: Mapping[str, Any] = seen) -> None:
            with torch.no_grad():
                model.predict_action_batch(seen, mode="train")

        for how, call in (("model alone", alone), ("as its worker calls it", called)):
            yield milliseconds(f"{preset} RL rlinf rollout {batch}, {how}", timed(call, 5, 1))


def _update(model: torch.nn.Module, optimiser: torch.optim.Optimizer, preset: str, batch: int) -> Iterator[Row]:
    played = _experience(preset, batch)
    transform = model.input_transform
    ready = upstream.as_upstream(_inputs(preset, batch))
    handed = {"image": ready.images, "image_mask": ready.image_masks, "state": ready.state}
    handed |= {name: getattr(ready, name) for name in ("tokenized_prompt", "tokenized_prompt_mask")}
    step = _step(model, optimiser, played)
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    for how, inputs in (("model alone", lambda *_, **__: dict(handed)), ("as its worker calls it", transform)):
        model.input_transform = inputs
        row = milliseconds(f"{preset} RL rlinf update {batch}, {how}", timed(step, 4, 1))
        peak = torch.cuda.max_memory_allocated() / 2**30 if DEVICE == "cuda" else float("nan")
        yield row._replace(note=f"{row.note}, {row.value / batch:.2f} ms a sample, {peak:.0f} GiB")
    model.input_transform = transform


def _step(model: torch.nn.Module, optimiser: torch.optim.Optimizer, played: dict[str, Any]) -> Callable[[], None]:
    """RLinf's `train_micro_batch` and `optimizer_step` with its settings for pi0, one micro-batch a step."""
    policy_loss = actor.losses()
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]

    def step() -> None:
        optimiser.zero_grad()
        output = model(forward_inputs=played["forward_inputs"], compute_values=True)
        loss, _ = policy_loss(
            loss_type="actor_critic",
            logprob_type="chunk_level",
            reward_type="chunk_level",
            task_type="embodied",
            single_action_dim=actor.ACTION_DIM,
            logprobs=output["logprobs"],
            values=output["values"],
            old_logprobs=played["logprobs"],
            prev_values=played["values"],
            advantages=played["advantages"],
            returns=played["returns"],
            clip_ratio_low=0.2,
            clip_ratio_high=0.2,
            value_clip=0.2,
            huber_delta=10.0,
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimiser.step()

    return step


def _experience(preset: str, batch: int) -> dict[str, Any]:
    """Chunks as a rollout leaves them for the update, with random actions."""
    seen = actor.environment_observation(batch)
    prompt = 200 if preset == "pi05" else 48
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "chains": torch.randn(batch, STEPS + 1, HORIZON, 32, generator=generator).to(DEVICE),
        "denoise_inds": torch.randint(0, STEPS, (batch, 1), generator=generator).repeat(1, STEPS).to(DEVICE),
        "tokenized_prompt": torch.ones(batch, prompt, dtype=torch.int64, device=DEVICE),
        "tokenized_prompt_mask": torch.ones(batch, prompt, dtype=torch.bool, device=DEVICE),
        "observation/image": seen["main_images"],
        "observation/wrist_image": seen["wrist_images"],
        "observation/state": seen["states"],
    }
    scalars = torch.randn(3, batch, 1, generator=generator).to(DEVICE)
    logprobs = torch.zeros(batch, actor.CHUNK, actor.ACTION_DIM, device=DEVICE)
    names = dict(zip(("values", "advantages", "returns"), scalars, strict=True))
    return {"forward_inputs": inputs, "logprobs": logprobs, **names}


def _inputs(preset: str, batch: int) -> Any:
    return observation(batch, prompt=200 if preset == "pi05" else 48)
