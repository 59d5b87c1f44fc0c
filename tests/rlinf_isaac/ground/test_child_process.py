from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from rlinf_isaac.ground.child_process import Child

ECHO = "import sys\nfor line in sys.stdin: print(line.strip()[::-1], flush=True)\nprint('the end')"
DEAF = "import time, sys\nprint('x' * 99, flush=True)\ntime.sleep(600)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def until_printed(child: Child, text: bytes) -> None:
    while text not in child.output():
        assert child.ending is None


def has_ended(descriptor: int) -> bool:
    return bool(select.select([descriptor], [], [], 20)[0])


def test_it_hears_what_is_said_and_what_it_prints_is_kept(tmp_path):
    child = Child(python(ECHO), tmp_path / "log")
    child.say("zwölf")
    until_printed(child, "flöwz\n".encode())
    child.say("more")  # reading did not move the place where it writes
    until_printed(child, b"erom\n")
    assert (child.status, child.ending) == (None, None)
    child.kill()
    assert (tmp_path / "log").read_bytes() == child.output() == "flöwz\nerom\n".encode()
    assert child.output(last=5) == b"erom\n"


@pytest.mark.parametrize(
    ("code", "ending"),
    [("", "exit status 0"), ("raise SystemExit(3)", "exit status 3"), ("import os; os.abort()", "signal 6")],
)
def test_how_it_ended(code, ending):
    child = Child(python(code))
    assert child.wait(20)
    assert child.ending == ending


def test_what_does_not_end_by_itself_is_killed():
    child = Child(python(DEAF))
    assert not child.wait(0.0)
    child.stop(0.0)
    child.stop(0.0)
    assert child.ending == "signal 9"


def test_a_line_that_it_did_not_take_does_not_keep_it_from_being_killed():
    child = Child(python("raise SystemExit"))
    assert child.wait(20)
    with pytest.raises(BrokenPipeError):
        child.say("anyone?")
    child.kill()


def test_its_environment_is_the_one_given():
    child = Child(python("import os; print(os.environ.get('HOME'), os.environ['ONLY'])"), environment={"ONLY": "this"})
    assert child.wait(20)
    assert child.output() == b"None this\n"


def test_its_own_children_are_killed_with_it():
    code = f"import subprocess, sys\nprint(subprocess.Popen([sys.executable, '-c', {DEAF!r}]).pid, flush=True)\n{DEAF}"
    child = Child(python(code))
    until_printed(child, b"\n")
    grandchild = os.pidfd_open(int(child.output().split()[0]))
    child.kill()
    assert has_ended(grandchild)
    os.close(grandchild)


def test_it_ends_when_it_is_forgotten():
    child = Child(python(DEAF))
    descriptor = os.pidfd_open(child.pid)
    del child
    assert has_ended(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("how", ["exit", "kill"])
def test_it_does_not_outlive_its_parent(how):
    """One that reads its stdin ends even where the parent could not see to it."""
    code = "import sys\nfrom rlinf_isaac.ground.child_process import Child\n"
    code += f"child = Child([sys.executable, '-c', {ECHO!r}])\nprint(child.pid, flush=True)\nsys.stdin.read()"
    parent = subprocess.Popen(python(code), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    descriptor = os.pidfd_open(int(parent.stdout.readline()))
    parent.send_signal(signal.SIGKILL) if how == "kill" else None
    parent.communicate()
    assert has_ended(descriptor)
    os.close(descriptor)
