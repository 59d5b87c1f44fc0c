"""What a job takes of this machine: room on the disk, a GPU."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from rlinf_isaac.config.reads import acts
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.sft_schema import BATCHES_AHEAD
from rlinf_isaac.config.suite import configs_of, tasks_of
from rlinf_isaac.config.task import task_of
from rlinf_isaac.engines.local.training.torchrun import launch
from rlinf_isaac.envs import no_environment
from rlinf_isaac.envs.host.interpreter import check_host
from rlinf_isaac.envs.isaaclab.checks import check_lab
from rlinf_isaac.envs.isaaclab.versions import PYTHON_VARIABLE, check_python
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.pi0.layout import state_dict_shapes
from rlinf_isaac.tasks.task import BUILTIN, ISAACLAB


def training_bytes(config: JobConfig) -> int:
    """About what fine-tuning leaves on the disk: every checkpoint in fp32, and the optimiser's state (three times).

    An average of the weights is one more in that state, and ``sft.evaluate_raw`` as many checkpoints again.
    """
    checkpoints, averaged = math.ceil(config.sft.steps / config.sft.save_interval), config.sft.ema_decay > 0
    return _training_bytes(config, checkpoints * (2 if averaged and config.sft.evaluate_raw else 1) + averaged)


def reinforcement_bytes(config: JobConfig) -> int:
    """About what reinforcement learning from one checkpoint leaves on the disk, as `training_bytes`."""
    return _training_bytes(config, math.ceil(config.rl.iterations / config.rl.save_interval))


def _training_bytes(config: JobConfig, checkpoints: int) -> int:
    parameters = sum(math.prod(shape) for shape in state_dict_shapes(config.model).values())
    return 4 * parameters * (checkpoints + 3)


def demonstration_bytes(config: JobConfig) -> int:
    """About what demonstrations take: two PNG images per frame, a third of their raw size."""
    return config.demos.episodes * config.env.max_episode_steps * 2 * config.env.image_size**2


def check_simulator(config: JobConfig, env_python: str | None = None) -> list[Problem]:
    """Whether the simulator of each task is there, if it has an interpreter of its own: `env_python`, or the one that
    the task, or ISAACLAB_PYTHON, names. Nothing heavy is imported in that interpreter either."""
    problems: dict[Problem, None] = {}
    for each in configs_of(config):
        task = task_of(each)
        if task.env is None:
            problems[no_environment(task)] = None
        elif task.env.kind == ISAACLAB:
            problems |= dict.fromkeys(check_lab(task, env_python))
        elif task.env.kind != BUILTIN:
            problems |= dict.fromkeys(check_host(task, env_python))
        elif each.env.backend == "isaaclab":
            problems |= dict.fromkeys(check_python(env_python or os.environ.get(PYTHON_VARIABLE)))
    return list(problems)


def check_prompts(config: JobConfig) -> list[Problem]:
    """Whether a job that plays episodes has an instruction for them."""
    cure = "write the prompt into the task, or a list of prompts"
    cause = "the task {} leaves its prompt to the dataset, and no dataset or checkpoint here says it"
    silent = [task for task in tasks_of(config) if task.prompts is None and not task.instructed_by_env]
    return [Problem("no-prompt", cause.format(task.name), cure) for task in silent]


def check_seeded(config: JobConfig, what: str, cure: str) -> list[Problem]:
    """Whether the environments of a job that pairs episodes by their seeds have seeds; `what` it does, for people."""
    cause = "{} takes no seed for an episode, and " + what
    return [
        Problem("env-unseeded", cause.format(f"the environment of {task.name}"), cure)
        for task in tasks_of(config)
        if task.env is not None and not task.env.seeded
    ]


def check_shared_memory(config: JobConfig, form: str = "main", place: Path = Path("/dev/shm")) -> list[Problem]:
    """Whether loader processes can hand over their batches: containers often have 64 MB of shared memory."""
    workers, batches = config.sft.loader_workers, BATCHES_AHEAD + 1
    if not (acts(form, "sft.loader_workers", config) and workers and place.is_dir()):
        return []
    # Of each sample mostly the images.
    one = (
        config.sft.batch_size
        * len({slot for task in tasks_of(config) for slot in task.cameras})
        * 3
        * config.model.vision.image_size**2
    )
    free, needed = shutil.disk_usage(place).free, one * workers * batches
    if free >= needed:
        return []
    cause = f"{place} has {free >> 20} MiB free, {workers} loader processes take up to {needed >> 20} MiB"
    cure = f"set sft.loader_workers={free // (one * batches)}, or give the container more (docker run --shm-size)"
    return [Problem("shared-memory", cause, cure)]


def check_device(config: JobConfig, form: str = "main") -> list[Problem]:
    """A CUDA device where there is no NVIDIA driver; found out without importing torch. A form of a verb
    (`reads.FORMS`) that leaves the device to others is not asked for one, nor one process for several."""
    if not acts(form, "compute.device", config):
        return []
    device = config.compute.device
    if device.split(":")[0] not in ("cpu", "cuda", "mps"):
        return [Problem("bad-value", f"compute.device is {device}", "set it to cpu, cuda, cuda:<n> or mps")]
    if device.startswith("cuda") and not Path("/proc/driver/nvidia").exists() and shutil.which("nvidia-smi") is None:
        cause = f"compute.device is {device}, but this machine has no NVIDIA driver"
        return [Problem("no-gpu", cause, "pass --device cpu, or --preset tiny which is made for it")]
    gpus = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
    several = acts(form, "compute.num_processes", config)
    if device != "cuda" or not several:
        return []
    place = launch()
    here = config.compute.num_processes if place is None else place.local_size
    if 0 < gpus < here:
        cause = f"{here} processes are to train on this machine, which has {gpus} GPUs"
        return [Problem("few-gpus", cause, f"set it to {gpus} or less")]
    return []
