"""The parent's side, with a stand-in for the simulator: an executable that speaks the protocol and then misbehaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rlinf_isaac.envs.host.process import SimulatorProcess
from rlinf_isaac.ground.errors import SimulatorDied

SERVER = """#!{python}
import json, os, signal, sys, threading, time
from multiprocessing.connection import Connection
settings = json.loads(sys.argv[-1])
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(1)), daemon=True).start()
connection = Connection(settings["socket"])
say = lambda **message: connection.send_bytes(json.dumps(message).encode())
print("The simulator says hello", flush=True)
if settings["start"] == "slow":
    time.sleep(60)
if settings["start"] == "fail":
    sys.exit(3)
say(ok=True, version="3.0.0", assets="00")
while True:
    do = json.loads(connection.recv_bytes())["do"]
    if do == "close":
        break
    elif do == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif do == "hang":
        time.sleep(60)
    elif do == "refuse":
        say(ok=False, error="StaleObservation: the end effector is elsewhere")
    else:
        say(ok=True)
"""


@pytest.fixture
def python(tmp_path) -> str:
    path = tmp_path / "python"
    path.write_text(SERVER.format(python=sys.executable))
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def memory() -> int:
    return os.memfd_create("test")


def start(python: str, memory: int, how: str = "well", start_s: float = 60.0) -> SimulatorProcess:
    process = SimulatorProcess("The simulator", python, Path("server.py"), {"start": how}, [memory], "host")
    assert process.finish("start", start_s)["version"] == "3.0.0"
    return process


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_orders_are_carried_out_until_it_is_closed(python, memory):
    simulator = start(python, memory)
    assert simulator.order("step", 60.0) == {"ok": True}
    simulator.close()
    simulator.close()
    assert simulator.child.status == 0


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ("crash", "ended with signal 11 during 'crash'"),
        ("hang", "did not finish 'hang' in 1 s"),
        ("refuse", "failed at 'refuse': StaleObservation"),
    ],
)
def test_what_goes_wrong_is_said_and_nothing_is_left_running(python, memory, order, reason):
    simulator = start(python, memory)
    with pytest.raises(SimulatorDied, match=reason) as raised:
        simulator.order(order, timeout_s=1.0)
    assert not is_running(simulator.child.pid)
    log = Path(str(raised.value).rpartition(" ")[2])
    assert "The simulator says hello" in log.read_text()
    simulator.close()


def test_a_killed_one_is_noticed_by_the_next_order(python, memory):
    simulator = start(python, memory)
    os.kill(simulator.child.pid, signal.SIGKILL)
    with pytest.raises(SimulatorDied, match="signal 9"):
        simulator.order("step", 60.0)


@pytest.mark.parametrize(("how", "reason"), [("fail", "exit status 3"), ("slow", "did not finish 'start' in 1 s")])
def test_one_that_does_not_start_is_an_error(python, memory, how, reason):
    with pytest.raises(SimulatorDied, match=reason):
        start(python, memory, how, start_s=1.0)


def test_it_ends_with_a_parent_that_is_killed(python, tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom rlinf_isaac.envs.host.process import SimulatorProcess\n"
        f"each = SimulatorProcess('it', {python!r}, Path('server.py'), {{'start': 'well'}}, [], 'host')\n"
        "each.finish('start', 60.0)\nprint(each.child.pid, flush=True)\nsys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    descriptor = os.pidfd_open(child)
    parent.kill()
    parent.wait()
    import select

    assert select.select([descriptor], [], [], 20)[0], "the simulator outlives its parent"
    os.close(descriptor)
