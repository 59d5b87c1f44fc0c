"""Puts attacks through the command line, and says of each what is wrong with how it ended."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from faults.attack import CANARY, Attack
from faults.hostile import ATTACKS

TESTS = Path(__file__).parents[1]
ACTS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What must not reach a terminal."""


@dataclass(frozen=True)
class Ended:
    """How an attack ended: exit code (minus a signal's number), seconds of CPU, largest resident memory, and what it
    printed."""

    code: int
    seconds: float
    wall: float
    mb: float
    stdout: str
    stderr: str

    def faults(self, codes: tuple[int, ...], executed: bool) -> list[str]:
        """What is wrong with it, by kind."""
        found = []
        text = self.stdout + self.stderr
        if executed:
            found.append("executed")
        if "Traceback (most recent call last)" in text:
            found.append("traceback")
        if -self.code in (9, 14, 24):  # SIGKILL and SIGXCPU after too much computing, SIGALRM after too long a wait
            found.append("hang")
        elif self.code < 0:
            found.append(f"crash by signal {-self.code}")
        elif self.code not in codes:
            found.append(f"exit code {self.code}")
        if self.code == 2 and not ("cure " in text or "Error: " in text or '"cure"' in text):
            found.append("no cure")
        if match := ACTS.search(text):
            found.append(f"control character {match[0]!r}")
        return found


class Victim:
    """A process that has imported everything, and forks calls of the command line."""

    def __init__(self, process: subprocess.Popen[str], world: Path, scratch: Path) -> None:
        self._process, self._world, self._scratch = process, world, scratch

    def suffer(self, number: int) -> tuple[Ended, list[str]]:
        """Put one attack through, in a directory of its own that is gone afterwards."""
        attack = ATTACKS[number]
        directory = self._scratch / "here"
        directory.mkdir(parents=True)
        fetch(attack, self._world, directory)
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps([number, str(directory)]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        texts = {name: (self._scratch / name).read_bytes().decode(errors="replace") for name in ("stdout", "stderr")}
        ended = Ended(**answer, **texts)
        executed = executed_in(directory)
        shutil.rmtree(self._scratch)
        return ended, ended.faults(attack.codes, executed)


def fetch(attack: Attack, world: Path, directory: Path) -> None:
    """Copy what an attack needs of the world."""
    for name in attack.needs:
        copy = shutil.copytree if (world / name).is_dir() else shutil.copy
        copy(world / name, directory / name)


def executed_in(directory: Path) -> bool:
    """Whether something of a file was executed there."""
    return any(CANARY in name for _, *names in os.walk(directory) for group in names for name in group)


@contextmanager
def victim(world: Path, scratch: Path) -> Iterator[Victim]:
    """Start one, on copies of `world` (`world.make_world`), at work below `scratch`."""
    places = [os.environ.get("PYTHONPATH"), str(TESTS.parent), str(TESTS)]  # packages before tests/rlinf_isaac
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_LEROBOT_HOME": "/nowhere",
        "COLUMNS": "200",
    }
    command = [sys.executable, str(Path(__file__).with_name("victim.py")), f"{scratch}.db"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:
        yield Victim(process, world, scratch)
        assert process.stdin
        process.stdin.close()
        assert process.wait() == 0
