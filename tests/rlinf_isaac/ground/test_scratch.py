"""One temporary directory per process, which goes with it, or with the next one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlinf_isaac.ground.scratch import own_directory

SCRIPT = """
import os, sys, tempfile
from rlinf_isaac.ground.scratch import own_directory
with own_directory():
    open(os.path.join(tempfile.gettempdir(), "gigabytes"), "w").close()
    print(tempfile.gettempdir(), os.environ["TMPDIR"], os.environ["TORCHINDUCTOR_CACHE_DIR"], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A short temporary directory: sockets lie below it."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        yield Path(directory)


def start(place: Path, script: str = SCRIPT) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-c", script]
    return subprocess.Popen(command, text=True, env=environment | {"TMPDIR": str(place)}, **pipes)


def says(process: subprocess.Popen[str]) -> Path:
    """Its directory."""
    assert process.stdout is not None
    own, variable, kernels = process.stdout.readline().split()
    assert own == variable
    assert Path(kernels).parent == Path(own).parents[1], "what is worth keeping stays where it was"
    return Path(own)


def test_it_goes_with_its_process_or_with_the_next_one(place):
    with start(place) as killed, start(place) as alive:
        left, kept = says(killed), says(alive)
        assert left.parent == kept.parent == place / f"rlinf-isaac-{os.getuid()}"
        assert [folder.stat().st_mode & 0o777 for folder in (left.parent, left)] == [0o700, 0o700]
        killed.kill()
        killed.wait()
        assert (left / "gigabytes").exists()
        with start(place) as third:
            says(third)
            assert not left.exists()
            assert (kept / "gigabytes").exists(), "its process lives"
            third.communicate()
        alive.communicate()
    assert [path.name for path in place.rglob("*")] == [f"rlinf-isaac-{os.getuid()}", ".lock"]


def test_what_a_killed_process_started_does_not_keep_it(place):
    """Nor is a directory kept that was not locked yet."""
    sleeper = SCRIPT.replace(
        "sys.stdin.read()", "import subprocess; print(subprocess.Popen(['sleep', '60']).pid, flush=True); input()"
    )
    with start(place, sleeper) as killed, start(place) as other:
        left = says(killed)
        assert killed.stdout is not None
        child = int(killed.stdout.readline())
        killed.kill()
        (left.parent / "1-ab").mkdir()
        kept = says(other)
        with start(place) as third:
            newest = says(third)
            assert {path.name for path in left.parent.iterdir()} == {".lock", kept.name, newest.name}
            os.kill(child, signal.SIGKILL)  # it lived until now
            third.communicate()
        other.communicate()


def test_another_user_cannot_offer_the_place(place, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr("rlinf_isaac.ground.scratch._own", None)
    (place / "elsewhere").mkdir(mode=0o700)
    root = place / f"rlinf-isaac-{os.getuid()}"
    root.symlink_to("elsewhere")
    with own_directory():
        assert tempfile.gettempdir() == str(place)
    root.unlink()
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    with own_directory():
        assert tempfile.gettempdir() == str(place)
    assert list(root.iterdir()) == list((place / "elsewhere").iterdir()) == []


def test_sockets_have_room(place, monkeypatch):
    long = place / ("x" * 60)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    monkeypatch.setattr("rlinf_isaac.ground.scratch._own", None)
    with own_directory():
        assert tempfile.gettempdir() == str(long)


def test_a_verb_leaves_the_process_as_it_was(place, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    monkeypatch.setattr("rlinf_isaac.ground.scratch._own", None)
    before = dict(os.environ)
    with own_directory():
        own = tempfile.gettempdir()
        with own_directory():
            assert tempfile.gettempdir() == own, "a verb inside a verb"
    with own_directory():
        assert tempfile.gettempdir() == own, "the next verb of this process"
    assert (tempfile.gettempdir(), dict(os.environ)) == (str(place), before)
