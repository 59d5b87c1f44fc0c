"""Whether torchrun started this process, and as which of them. No torch.

    torchrun --nnodes 2 --nproc-per-node 8 --rdzv-backend c10d --rdzv-endpoint HOST:29500 -m mlflow_project.cli sft ...

Its variables: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
"""

from __future__ import annotations

import os
from typing import NamedTuple


class Launch(NamedTuple):
    """A process among those that torchrun started.

    Attributes:
        rank: its number, from 0 on.
        size: how many there are on all machines.
        local_rank: its number on this machine.
        local_size: how many there are on this machine.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def first(self) -> bool:
        """Whether this is the process that records and prints."""
        return self.rank == 0


def launch() -> Launch | None:
    """This process's place; None where torchrun did not start it, or started nothing else."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Launch(*(int(os.environ[name]) for name in names))
