"""Reads torchrun's environment variables, without importing torch.

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m mlflow_project.cli sft ...

Source: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Launch(NamedTuple):
    """Place of a process among those that torchrun started.

    Attributes:
        rank: rank of the process, from 0 on.
        size: number of processes on all machines.
        local_rank: rank of the process on this machine.
        local_size: number of processes on this machine.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def first(self) -> bool:
        """Whether this is the process that records to MLflow and prints."""
        return self.rank == 0


def launch() -> Launch | None:
    """The place of this process; None if torchrun did not start it, or started only this process."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Launch(*(int(os.environ[name]) for name in names))
