"""``lerobot-train``, recorded, with what `lerobot_toy` registers. KILL_AT and FAIL_AT name a step that ends it."""

from __future__ import annotations

import os
import signal
import sys

import lerobot_toy  # noqa: F401

from mlflow_project.callbacks import lerobot

lerobot.track(name="toy")

from lerobot.scripts import lerobot_train  # noqa: E402

update = lerobot_train.update_policy
steps = 0


def updated(*args, **kwargs):
    global steps
    steps += 1
    if str(steps) == os.environ.get("FAIL_AT"):
        raise RuntimeError("CUDA out of memory")
    if str(steps) == os.environ.get("KILL_AT"):
        os.kill(os.getpid(), signal.SIGKILL)
    return update(*args, **kwargs)


lerobot_train.update_policy = updated
sys.argv[0] = "lerobot-train"
lerobot_train.main()
