"""Frames of several tasks in one batch: each is made by its own task, then all are put together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import configs_of
from rlinf_isaac.config.task import task_of
from rlinf_isaac.data.norm_stats import from_json
from rlinf_isaac.engines.base import SftJob
from rlinf_isaac.engines.policies import make_processor
from rlinf_isaac.pi0.observation import CAMERAS, Observation
from rlinf_isaac.pi0.policy import Processor

Frames = tuple[Observation, torch.Tensor, np.ndarray]
"""An observation of B frames, normalised actions (B, H, A), and states (B, D) in robot units."""


@dataclass(frozen=True)
class TaskProcessors:
    """The processors of the tasks of a suite, in its order, which is that of the datasets.

    Attributes:
        configs: the job of each task.
        processors: the processor of each task.
    """

    configs: tuple[JobConfig, ...]
    processors: tuple[Processor, ...]

    def of(self, number: int) -> tuple[JobConfig, Processor]:
        """The job and the processor of the task with this number."""
        return self.configs[number], self.processors[number]

    @property
    def cameras(self) -> tuple[str, ...]:
        """The cameras that some task has."""
        own = {slot for config in self.configs for slot in task_of(config).cameras}
        return tuple(camera for camera in CAMERAS if camera in own)

    def join(self, numbers: np.ndarray, own: np.ndarray, load: Callable[[int, np.ndarray], Frames]) -> Frames:
        """Load frames of several tasks, and put them together in their order.

        Every batch encodes the cameras of all tasks, whichever tasks its rows are of: what is drawn for a row
        (augmentation) does not depend on the other rows. A camera that a row's task lacks is masked in it.

        Args:
            numbers: (B,) int64, the number of each frame's task.
            own: (B,) int64, its index in the dataset of that task.
            load: loads the frames of one task.
        """
        order = np.argsort(numbers, kind="stable")
        parts = [load(int(number), own[numbers == number]) for number in np.unique(numbers)]
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        observations, actions, states = zip(*parts, strict=True)
        width = max(each.shape[1] for each in states)
        whole = np.concatenate([np.pad(each, ((0, 0), (0, width - each.shape[1]))) for each in states])
        return _joined(observations, back, self.cameras), torch.cat(actions)[back], whole[back.numpy()]


AnyProcessor = Processor | TaskProcessors


def processor_of(job: SftJob) -> AnyProcessor:
    """The pre- and post-processing of a training: of its task, or of each task of its suite."""
    if not job.config.suite:
        return make_processor(job.config, from_json(job.norm_stats))
    configs = configs_of(job.config)
    further = job.further_norm_stats
    stats = [from_json(further.get(config.policy.asset_id, job.norm_stats)) for config in configs]
    return TaskProcessors(configs, tuple(map(make_processor, configs, stats)))


def _joined(parts: tuple[Observation, ...], back: torch.Tensor, cameras: tuple[str, ...]) -> Observation:
    length = max(part.prompt_tokens.shape[1] for part in parts)

    def padded(tokens: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(tokens, (0, length - tokens.shape[1]))  # with 0, as `pad_tokens` does

    return Observation(
        images={camera: torch.cat([part.images[camera] for part in parts])[back] for camera in CAMERAS},
        image_masks={camera: torch.cat([part.image_masks[camera] for part in parts])[back] for camera in CAMERAS},
        state=torch.cat([part.state for part in parts])[back],
        prompt_tokens=torch.cat([padded(part.prompt_tokens) for part in parts])[back],
        prompt_mask=torch.cat([padded(part.prompt_mask) for part in parts])[back],
        present_cameras=cameras,
    )
