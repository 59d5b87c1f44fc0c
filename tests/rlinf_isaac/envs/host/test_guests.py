"""What goes wrong in a worker, and what is left of it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rlinf_isaac.envs.host.env import HostEnv
from rlinf_isaac.ground.errors import SimulatorDied, SimulatorError

ONE = np.ones(1, bool)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_worker_ends_all_and_is_reported_by_every_later_order(toy_task) -> None:
    env = HostEnv(2, toy_task(), workers=2)
    pids = [process.child.pid for process in env.guests.processes]
    env.reset(seed=0)
    os.kill(pids[1], signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(SimulatorDied, match="signal 9"):
            env.step(np.zeros((2, 2)))
    assert not any(map(is_running, pids))
    env.close()


def test_an_environment_that_fails_is_said_with_its_traceback_in_a_file(toy_task) -> None:
    env = HostEnv(1, toy_task(options={"fails_at": 3}))
    env.reset(seed=[0])
    with pytest.raises(SimulatorDied, match="failed at 'step': RuntimeError: the plane is broken") as raised:
        env.chunk_step(np.zeros((1, 4, 2)), ONE)
    assert 'raise RuntimeError("the plane is broken")' in Path(str(raised.value).rpartition(" ")[2]).read_text()


@pytest.mark.parametrize(
    ("make", "why"),
    [
        ("toy.py:Sphere", "has no attribute 'Sphere'"),
        ("no_such_package.envs:make", "No module named 'no_such_package'"),
        ("NoSuchEnv-v0", "NoSuchEnv"),
    ],
)
def test_one_that_cannot_be_made_is_refused(toy_task, make, why) -> None:
    with pytest.raises(SimulatorError, match=rf"\[env-not-made\] (.|\n)*{why}"):
        HostEnv(1, toy_task(make=make))


def test_a_file_that_has_changed_is_refused(toy_task, tmp_path) -> None:
    (tmp_path / "toy.py").write_bytes(Path(__file__).with_name("toy.py").read_bytes())
    task = toy_task(tmp_path)
    (tmp_path / "toy.py").write_text("raise SystemExit('executed')")
    with pytest.raises(SimulatorError, match=r"\[env-source-changed\] .*toy\.py is not the file"):
        HostEnv(1, task)


def test_an_environment_of_gymnasium_is_made_by_its_id(toy_task) -> None:
    changes = {"cameras": {}, "state": {"dims": 3, "env": "observation"}, "action": {"dims": 1, "clip": [-2, 2]}}
    task = toy_task(make="Pendulum-v1", changes=changes, success="reward>=-0.01", options={"g": 9.0})
    env = HostEnv(1, task)
    assert env.identity.backend.startswith("gymnasium-gymnasium-")
    observation, _ = env.reset(seed=[3])
    step = env.chunk_step(np.full((1, 4, 1), 9.0), ONE)
    assert observation["observation"].shape == (1, 3)
    assert step.steps.tolist() == [4]
    env.close()


def test_workers_end_with_a_parent_that_is_killed(tmp_path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from conftest import plane\nfrom rlinf_isaac.envs.host.env import HostEnv\n"
        "env = HostEnv(2, plane(), workers=2)\n"
        "print(*(each.child.pid for each in env.guests.processes), flush=True)\nsys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    descriptors = [os.pidfd_open(int(pid)) for pid in parent.stdout.readline().split()]
    assert len(descriptors) == 2
    parent.kill()
    parent.wait()
    for descriptor in descriptors:
        assert select.select([descriptor], [], [], 20)[0], "a worker outlives its parent"
        os.close(descriptor)
