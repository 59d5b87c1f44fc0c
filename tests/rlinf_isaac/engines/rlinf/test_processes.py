"""Processes are found by what they carry with them, and nobody else's are touched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import suppress

import pytest

from rlinf_isaac.engines.rlinf import processes
from rlinf_isaac.engines.rlinf.processes import OWNER, end_abandoned, end_owned, new_owner, owned, ray_directory

WAITING = "print('ready', flush=True)\nimport time\ntime.sleep(600)"
GONE = "999999999-1-ab12"


@pytest.fixture
def start():
    """Starts processes with an environment, waits until they run; ends what is left of them."""
    started = []

    def start(code: str = WAITING, **environment: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | environment, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        return process

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            process.kill()
        process.communicate()


def test_children_in_sessions_of_their_own_are_found_and_ended(start):
    owner = new_owner()
    parent = start(
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
        "print('ready', child.pid, flush=True)\ntime.sleep(600)",
        **{OWNER: owner},
    )
    assert parent.pid in owned(owner)
    assert len(owned(owner)) == 2
    end_owned(owner)
    assert owned(owner) == []
    assert parent.wait(10) == -9


def test_a_process_without_its_environment_is_found_by_its_open_files(start):
    """Ray's processes write their title over the environment that /proc shows."""
    owner = new_owner()
    directory = ray_directory(owner)
    directory.mkdir()
    try:
        process = start(f"log = open('{directory}/log', 'w')\n{WAITING}")
        assert owned(owner) == [process.pid]
        end_owned(owner)
        assert process.wait(10) == -9
    finally:
        (directory / "log").unlink(missing_ok=True)
        directory.rmdir()


def test_other_owners_and_the_caller_are_left_alone(start, monkeypatch):
    owner, other = new_owner(), new_owner()
    monkeypatch.setenv(OWNER, owner)
    bystander = start(**{OWNER: other})
    end_owned(owner)
    assert bystander.poll() is None
    assert owned(other) == [bystander.pid]


def test_what_a_killed_owner_left_is_ended_and_removed(start):
    directory = ray_directory(GONE)
    directory.mkdir()
    orphan, alive = start(**{OWNER: GONE}), start(**{OWNER: new_owner()})
    assert orphan.pid in end_abandoned()
    assert orphan.wait(10) == -9
    assert alive.poll() is None
    assert not directory.exists()


def test_an_owner_is_this_process_and_this_start_of_it():
    owner = new_owner()
    assert re.fullmatch(rf"{os.getpid()}-\d+-[0-9a-f]{{4}}", owner)
    assert not processes._is_gone(owner)
    # The process id has been given to another process since.
    assert processes._is_gone(re.sub(r"-\d+-", "-1-", owner))


def test_a_socket_of_ray_fits_into_a_unix_address():
    longest = (
        ray_directory("4194304-9999999999-abcd") / "session_2026-11-23_09-10-08_450349_4194304/sockets/plasma_store"
    )
    assert len(str(longest)) <= 107
