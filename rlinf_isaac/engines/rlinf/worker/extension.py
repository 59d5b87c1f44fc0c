"""The extension module (``RLINF_EXT_MODULE``) that RLinf calls in every worker before the worker is created.

RLinf logs the errors of an extension and continues without it. So the extension writes a sentinel file in each worker
when it has succeeded, and the driver stops if one is missing (`check_sentinels`).

It may also be used with RLinf's own mains (``RLINF_EXT_MODULE=rlinf_isaac.engines.rlinf.extension``). There it seeds
the workers, adds data configs of OpenPI (`openpi_configs`), and adapts the return values of environments (`chunks`).

Environment variables:
    RLINF_ISAAC_DIRECTORY: directory of the run, for sentinels and journals. Not set under RLinf's own mains.
    RLINF_ISAAC_CHAIN_EXT: the user's own extension modules, comma separated; loaded after this one.
    RLINF_ISAAC_GROUPS: worker groups that need the extension, comma separated; all groups if not set.
    RLINF_ISAAC_SEED: seed of python's, numpy's and torch's generators; a worker adds its rank.
    RLINF_ISAAC_THREADS: torch threads in each worker; 0 keeps torch's default.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import traceback
from collections.abc import Iterable
from pathlib import Path

from rlinf_isaac.engines.rlinf.worker.place import directory, sentinel_file
from rlinf_isaac.ground.atomic import write_file

ENV_ID = "rlinf-isaac-stack-cube-v0"
MODEL_TYPE = "rlinf_isaac_pi0"


def register() -> None:
    """Register environment and model, load the user's extensions, seed the generators, and write the sentinel."""
    groups = os.environ.get("RLINF_ISAAC_GROUPS")
    if groups and "GROUP_NAME" in os.environ and os.environ["GROUP_NAME"] not in groups.split(","):
        return  # RLinf's channels are workers, too; they do not need these imports, which take seconds
    sentinel = {"pid": os.getpid(), "host": socket.gethostname(), "error": None}
    try:
        _register()
        _register_theirs()
        _prepare_worker()
    except BaseException:
        sentinel["error"] = traceback.format_exc()
        raise
    finally:
        if (worker := os.environ.get("WORKER_NAME")) and "RLINF_ISAAC_DIRECTORY" in os.environ:
            path = sentinel_file(directory(), worker)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_file(path, json.dumps(sentinel))  # atomically, because the driver may read it at the same time


def check_sentinels(run: Path, workers: Iterable[str]) -> list[str]:
    """Problems of the extension in these workers: RLinf has not called it, or it has failed."""
    problems = [
        f"worker {worker} did not load the extension (RLINF_EXT_MODULE): is its PYTHONPATH the same?"
        for worker in workers
        if not sentinel_file(run, worker).exists()
    ]
    return problems + failed_extensions(run)


def failed_extensions(run: Path) -> list[str]:
    """Errors of this extension and of the user's, one for each worker in which one failed."""
    problems = []
    for file in sorted((run / "workers").glob("*.json")):
        if error := json.loads(file.read_text())["error"]:
            problems.append(f"an extension failed in worker {file.stem}: {error.strip().splitlines()[-1]}")
    return problems


def _register() -> None:
    from rlinf.envs.isaaclab import REGISTER_ISAACLAB_ENVS
    from rlinf.models import register_model

    from rlinf_isaac.engines.rlinf.worker.openpi_configs import register_openpi_configs
    from rlinf_isaac.engines.rlinf.worker.rlinf_pi0 import build_policy
    from rlinf_isaac.engines.rlinf.worker.rlinf_stack_cube import RlinfStackCube

    REGISTER_ISAACLAB_ENVS[ENV_ID] = RlinfStackCube
    register_model(MODEL_TYPE, build_policy, force=True)

    if "RLINF_ISAAC_DIRECTORY" not in os.environ:  # only under RLinf's own mains, as importing OpenPI takes seconds
        register_openpi_configs()


def _register_theirs() -> None:
    """Load the user's extensions, and adapt the return values of their environments to RLinf."""
    from rlinf.envs.isaaclab import REGISTER_ISAACLAB_ENVS

    from rlinf_isaac.engines.rlinf.worker.chunks import with_lists

    known = dict(REGISTER_ISAACLAB_ENVS)
    for name in filter(None, os.environ.get("RLINF_ISAAC_CHAIN_EXT", "").split(",")):
        module = importlib.import_module(name)
        if hasattr(module, "register"):
            module.register()
    for name, environment in REGISTER_ISAACLAB_ENVS.items():
        if environment is not known.get(name) and isinstance(environment, type):
            REGISTER_ISAACLAB_ENVS[name] = with_lists(environment)


def _prepare_worker() -> None:
    import torch
    from rlinf.utils.utils import seed_everything

    if threads := int(os.environ.get("RLINF_ISAAC_THREADS", "0")):
        torch.set_num_threads(threads)
    seed_everything(int(os.environ.get("RLINF_ISAAC_SEED", "0")) + int(os.environ.get("RANK", "0")))
