"""A real dataset of the real expert, and real checkpoints trained on it for a few steps, shared by all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from forked_workers import fork_workers
from hypothesis import HealthCheck, settings
from support import small_config

if TYPE_CHECKING:
    from training_support import Pair

os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker of pytest-xdist has a core, and so have its processes

# A shell starts what is in the background, or under nohup, with these ignored; processes of tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

# How long an example takes is the machine's business, which others may use as well. Each run looks at other examples.
EXAMPLES = int(os.environ.get("EXAMPLES", "40"))
settings.register_profile(
    "any machine", deadline=None, max_examples=EXAMPLES, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist, where it is installed
def pytest_xdist_make_scheduler(config, log):
    """Each worker takes a run of neighbouring tests, and what is left of another's in the end: what a module's tests
    share is made once, not once in each worker."""
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log) if config.getvalue("dist") == "load" else None


@pytest.fixture(scope="session", autouse=True)
def _cache_of_this_session(tmp_path_factory) -> Iterator[None]:
    """Digests that tests keep do not mix with those of the person who runs them; child processes inherit it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLINF_ISAAC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _workers_of_this_session() -> Iterator[None]:
    """What would be spawned here is forked from a process that has imported torch and MuJoCo (`forked_workers`)."""
    with pytest.MonkeyPatch.context() as patch:
        fork_workers(patch)
        yield


@pytest.fixture(scope="session")
def small_dataset(tmp_path_factory) -> Path:
    """A LeRobot dataset of two demonstrations."""
    from rlinf_isaac.engines.demonstrations import record_demonstrations

    root = tmp_path_factory.mktemp("data") / "stack2"
    for _ in record_demonstrations(small_config(), root):
        pass
    return root


@pytest.fixture(scope="session")
def small_checkpoints(tmp_path_factory, small_dataset) -> Path:
    """Checkpoint root with the steps 2, 4 and 6 of one training run. Read only."""
    from rlinf_isaac.engines.local import LocalEngine
    from rlinf_isaac.jobs.sft import plan

    job = plan(small_config(), small_dataset, None, tmp_path_factory.mktemp("sft"))
    for _ in LocalEngine().sft(job):
        pass
    return job.output / "checkpoints"


@pytest.fixture(scope="session")
def walks(tmp_path_factory) -> tuple[Path, Path]:
    """The files of two tasks whose dims, cameras and rates differ (`walks.two_tasks`)."""
    from walks import two_tasks

    return two_tasks(tmp_path_factory.mktemp("walks"))


@pytest.fixture(scope="session")
def walk_datasets(tmp_path_factory, walks) -> tuple[Path, Path]:
    """Two demonstrations of each of `walks`, in their order."""
    from rlinf_isaac.config.suite import configs_of
    from rlinf_isaac.engines.demonstrations import record_demonstrations

    roots = []
    for config in configs_of(small_config([f"env.task={','.join(map(str, walks))}"])):
        roots.append(tmp_path_factory.mktemp("data") / config.env.task.replace("/", "-"))
        for _ in record_demonstrations(config, roots[-1]):
            pass
    return roots[0], roots[1]


@pytest.fixture(scope="session")
def walk_checkpoints(tmp_path_factory, walks, walk_datasets) -> Path:
    """Checkpoint root with the steps 2, 4 and 6 of one training on both `walks`. Read only."""
    from rlinf_isaac.engines.local import LocalEngine
    from rlinf_isaac.jobs.sft import plan

    config = small_config([f"env.task={','.join(map(str, walks))}", "norm_stats.batch_size=1"])
    job = plan(config, walk_datasets[0], None, tmp_path_factory.mktemp("sft"), mixed_with=walk_datasets[1:])
    for _ in LocalEngine().sft(job):
        pass
    return job.output / "checkpoints"


@pytest.fixture(scope="session")
def pair() -> Iterator[Pair]:
    """Two processes that train together, for the trainings of many tests."""
    from training_support import Pair

    pair = Pair()
    yield pair
    pair.close()
