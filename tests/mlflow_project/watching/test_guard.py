"""What `ui` starts never outlives it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

SERVER = "import os, time\nworker = os.fork()\nworker and print(os.getpid(), worker, flush=True)\ntime.sleep(600)"
PARENT = f"""
import sys, time
from rlinf_isaac.ground.child_process import Child
child = Child([sys.executable, "-m", "mlflow_project.watching.guard", sys.executable, "-c", {SERVER!r}])
while not child.output().endswith(b"\\n"):
    time.sleep(0.01)
print(child.pid, child.output().decode(), flush=True)
sys.stdin.read()
"""


def test_kill_9_leaves_no_orphan():
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", PARENT], **pipes) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3, "the guard, the server and its worker"
        ends = [os.pidfd_open(pid) for pid in pids]
        parent.send_signal(signal.SIGKILL)
    for end in ends:
        assert select.select([end], [], [], 60)[0]
        os.close(end)
