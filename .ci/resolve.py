"""Resolves the install lines of README and docs/ against the public index alone, as a stock machine would.

    python .ci/resolve.py --uv UV     every line on every Python that it is for, by uv: seconds a line
    python .ci/resolve.py             two of them by pip, which is what people type; `.ci/run` installs a third by it

A line that asks the index of torch's CPU builds is left out: what it needs is what the line without needs, less CUDA.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from readme_lines import Install, installs
from stock import environment, find_python

ROOT = Path(__file__).parents[1]
PYTHONS = {
    "constraints.txt": ("3.11", "3.12", "3.13"),
    "constraints-rlinf.txt": ("3.11", "3.12", "3.13"),
}
"""Constraints -> the Pythons that they are for; others are for the one that its page makes the interpreter with."""

BY_PIP = {".": "3.13", ".[rlinf]": "3.11"}
"""What pip, too, resolves, and on which Python: the others differ in what they add to these, and pip takes fifty times
as long as uv."""


def by_uv(uv: str, version: str, install: Install, home: str) -> bool:
    """Ask uv, which needs no interpreter of that version."""
    words, wanted = list(install.arguments), []
    options = []
    while words:
        word = words.pop(0)
        if word == "-e":
            wanted.append(f"-e {words.pop(0)}")
        elif word.startswith("-"):
            options += [word, words.pop(0)]
        else:
            wanted.append(word)
    command = [uv, "pip", "compile", "--quiet", "--python-version", version, "-o", f"{home}/resolved", *options, "-"]
    return _run(command, home, "\n".join(wanted))


def by_pip(python: str, install: Install, home: str) -> bool:
    """Ask the pip that a fresh virtual environment of this interpreter has."""
    subprocess.run([python, "-m", "venv", f"{home}/venv"], check=True)
    switches = ["--dry-run", "--ignore-installed", "--isolated", "--quiet"]
    return _run([f"{home}/venv/bin/pip", "install", *switches, *install.arguments], home)


def questions(tool: str) -> list[tuple[str, Install]]:
    """(Python, line) of each question to uv or pip."""
    asked: dict[tuple[str, tuple[str, ...]], Install] = {}
    for each in installs():
        versions = PYTHONS.get(each.constraints or "", (each.python,))
        if tool == "pip":
            versions = tuple(version for version in versions if version == BY_PIP.get(each.arguments[-1]))
        if not each.of_cpu:
            asked |= {(version, each.arguments): each for version in versions}
    return [(version, each) for (version, _), each in asked.items()]


def answer(version: str, install: Install, uv: str | None, uv_cache: str) -> bool:
    """Resolve one line, and say how it went."""
    start, python = time.monotonic(), None if uv else find_python(version)
    if not uv and python is None:
        print(f"not here        Python {version}: {install}", flush=True)
        return True
    with tempfile.TemporaryDirectory() as home:
        os.symlink(uv_cache, f"{home}/.cache")
        ok = by_uv(uv, version, install, home) if uv else by_pip(str(python), install, home)
    print(f"{'ok    ' if ok else 'FAILED'} {time.monotonic() - start:5.0f} s  Python {version}: {install}", flush=True)
    return ok


def main() -> None:
    """Resolve; exit status 1 when a line does not."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--uv", type=shutil.which)
    uv = parser.parse_args().uv
    with tempfile.TemporaryDirectory() as cache, ThreadPoolExecutor(2) as pool:
        asked = questions("uv" if uv else "pip")
        answers = list(pool.map(lambda each: answer(*each, uv, cache), asked))
    print(f"{sum(answers)} of {len(answers)} lines resolve")
    raise SystemExit(not all(answers))


def _run(command: list[str], home: str, text: str | None = None) -> bool:
    done = subprocess.run(command, cwd=ROOT, env=environment(home), input=text, capture_output=True, text=True)
    if done.returncode:
        print(done.stdout, done.stderr, sep="\n", flush=True)
    return done.returncode == 0


if __name__ == "__main__":
    main()
