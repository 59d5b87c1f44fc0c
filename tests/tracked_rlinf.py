"""`stock_rlinf`, recorded: the two lines at the top of a script of RLinf's own. ``FAIL_AT`` lets a step of it fail."""

from __future__ import annotations

import os
import sys

from mlflow_project.callbacks import rlinf

rlinf.track(tags={"team": "grasping"})

if __name__ == "__main__":
    from stock_rlinf import main

    if at := os.environ.get("FAIL_AT"):
        from rlinf.runners.embodied_runner import EmbodiedRunner

        save = EmbodiedRunner._save_checkpoint

        def failing(self) -> None:
            save(self)
            if self.global_step == int(at):
                raise RuntimeError("the disk of checkpoints is full")

        EmbodiedRunner._save_checkpoint = failing
    main(*sys.argv[1:])
