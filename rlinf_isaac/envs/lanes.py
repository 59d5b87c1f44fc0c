"""How a policy's environments are spread: among processes, and in lanes that play in turn."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rlinf_isaac.envs import make_env

if TYPE_CHECKING:
    from rlinf_isaac.config.schema import JobConfig
    from rlinf_isaac.envs.vector import EnvIdentity, TaskEnv
    from rlinf_isaac.tasks.task import Task
    from rlinf_isaac.tasks.variation import Variation


class Lanes:
    """The environments of a policy: one vector environment, or two of the same size. While the policy samples for the
    one, the other steps (`engines.rollout`).

    Attributes:
        envs: the vector environments; the slots of the second come after those of the first.
        num_envs: slots of all of them.
        rows: slots of one, the size of the policy's batches.
        task: what is played.
        identity: the properties on which observations and episodes depend, the same for all.
    """

    def __init__(self, envs: Sequence[TaskEnv]) -> None:
        self.envs = list(envs)
        self.rows = self.envs[0].num_envs
        assert all(env.num_envs == self.rows for env in self.envs)
        self.num_envs = self.rows * len(self.envs)
        self.task: Task = self.envs[0].task
        self.identity: EnvIdentity = self.envs[0].identity

    def close(self) -> None:
        """Free the simulators' resources. Calling this twice is allowed."""
        with ExitStack() as closing:
            for env in self.envs:
                closing.callback(env.close)


def make_lanes(
    config: JobConfig, num_envs: int, env_python: str | None = None, varied: Variation | None = None
) -> Lanes:
    """Builds the environments of a job that plays with one policy. Raises as `make_env`.

    Args:
        config: the job; ``compute.lanes`` and ``compute.env_processes`` say how they are spread.
        num_envs: number of environments.
        env_python, varied: as of `make_env`.
    """
    count, workers = lanes_of(config, num_envs), processes_of(config)
    with ExitStack() as opened:
        envs = []
        for _ in range(count):
            envs.append(make_env(config, num_envs // count, env_python, workers, apart=count > 1, varied=varied))
            opened.callback(envs[-1].close)
        lanes = Lanes(envs)
        opened.pop_all()
    return lanes


def lanes_of(config: JobConfig, num_envs: int) -> int:
    """In how many lanes so many environments play.

    Unless ``compute.lanes`` says it: two where the policy is on a GPU, which then need not wait for simulators on the
    CPU. One in IsaacLab: its environments step together, so that each lane takes a simulator of its own, and a step
    costs about as much for half of the environments as for all of them.
    """
    if config.compute.lanes:
        return config.compute.lanes
    on_gpu = config.compute.device.startswith("cuda")
    return 2 if on_gpu and config.env.backend != "isaaclab" and num_envs % 2 == 0 else 1


def processes_of(config: JobConfig) -> int | None:
    """How many processes simulate at the same time, as `make_env` takes it."""
    from rlinf_isaac.envs.host.crew import cpu_count

    if config.compute.env_processes:
        return config.compute.env_processes
    return cpu_count() if config.compute.device.startswith("cuda") else None
