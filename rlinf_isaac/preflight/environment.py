"""What this machine and this interpreter offer, found out without importing what is asked about.

Versions come from the metadata of installed distributions, torch's CUDA version from a file of the package, the GPU
from ``nvidia-smi``, the GL renderer from a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from rlinf_isaac.envs.isaaclab.versions import PYTHON_VARIABLE, check_python, probe
from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.ground.probe import installed_version, output_of, versions_in
from rlinf_isaac.tasks.shipped.metaworld import SETUP

DISTRIBUTION = "rlinf-isaac"

OPTIONAL = {
    "sentencepiece": ("PaliGemma's tokenizer, for the presets pi0 and pi05", "pip install 'rlinf-isaac[tokenizer]'"),
    "huggingface_hub": (
        "datasets and checkpoints of the Hugging Face Hub, hf://org/name",
        "pip install 'rlinf-isaac[hub]'",
    ),
    "tensorstore": ("JAX checkpoints of OpenPI", "pip install 'rlinf-isaac[jax]'"),
    "h5py": ("HDF5 demonstrations of IsaacLab and robomimic", "pip install 'rlinf-isaac[hdf5]'"),
    "ray": ("mlflow run -b rlinf-ray", "pip install -c constraints.txt -e '.[ray]'"),
}
"""Distribution for this interpreter -> what it unlocks, and how to get it."""


@dataclass(frozen=True)
class Guest:
    """Somebody else's package, in an interpreter of its own.

    Attributes:
        distribution: what is looked for.
        variable: names its interpreter.
        unlocks: what it is for.
        cure: the line, of README or of a task, that makes the interpreter.
    """

    distribution: str
    variable: str
    unlocks: str
    cure: str


GUESTS = (
    Guest(
        "rlinf",
        "RLINF_PYTHON",
        "--engine rlinf --rlinf-python",
        "python3.11 -m venv rlinf-venv && rlinf-venv/bin/pip install -c constraints-rlinf.txt torch torchvision"
        " && rlinf-venv/bin/pip install -c constraints-rlinf.txt -e '.[rlinf]'",
    ),
    Guest(
        "rlinf-openpi",
        "OPENPI_PYTHON",
        "comparisons with OpenPI's own code",
        "python3.11 -m venv openpi-venv && openpi-venv/bin/pip install -c constraints-openpi.txt -e '.[openpi]'",
    ),
    Guest(
        "lerobot",
        "LEROBOT_PYTHON",
        "datasets in lerobot's own readers",
        "python3.11 -m venv lerobot-venv && lerobot-venv/bin/pip install -c constraints-lerobot.txt -e '.[lerobot]'",
    ),
    Guest("metaworld", "METAWORLD_PYTHON", "--task metaworld/...", SETUP),
)


@dataclass(frozen=True)
class Component:
    """One thing this project needs or can use.

    Attributes:
        name: as its users call it.
        found: version or description; None when it is missing.
        needed: whether the embedded default cannot do without.
        unlocks: what it is for.
        cure: how to get it.
    """

    name: str
    found: str | None
    needed: bool
    unlocks: str
    cure: str


def inspect_environment() -> tuple[list[Component], list[Problem]]:
    """Every component, and the problems among them: what is needed and missing, or of a version that does not work."""
    components = [*_python(), *_packages(), *_gpu(), *_rendering(), *_optional(), *_guests(), *_isaaclab()]
    problems = [
        Problem("missing-component", f"{each.name} is missing: {each.unlocks}", each.cure)
        for each in components
        if each.needed and each.found is None
    ]
    return components, problems + check_requirements()


def check_requirements() -> list[Problem]:
    """Installed versions against the ranges that this project's own metadata names."""
    problems = []
    for requirement in _requirements():
        installed = installed_version(requirement.name)
        if installed is not None and not requirement.specifier.contains(installed, prereleases=True):
            cause = f"{requirement.name} {installed} is installed, this project works with {requirement.specifier}"
            cure = f"pip install -c constraints.txt '{requirement.name}{requirement.specifier}'"
            problems.append(Problem("version-range", cause, cure))
    return problems


def _python() -> Iterator[Component]:
    yield Component("Python", f"{platform.python_version()} ({sys.executable})", True, "everything", "")


def _packages() -> Iterator[Component]:
    for requirement in _requirements():
        version = installed_version(requirement.name)
        if requirement.name == "torch" and version is not None:
            version += f" ({_torch_cuda()})"
        cure = f"pip install -c constraints.txt '{requirement.name}{requirement.specifier}'"
        yield Component(requirement.name, version, True, "needed by everything", cure)


def _gpu() -> Iterator[Component]:
    lines = _text_of("nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader")
    names = "; ".join(line.strip() for line in lines.splitlines() if line.count(",") == 2)
    yield Component("NVIDIA GPU", names or None, False, "--device cuda: presets pi0 and pi05", "use a GPU machine")


def _rendering() -> Iterator[Component]:
    egl = ""
    if os.environ.get("MUJOCO_GL", "").lower() not in ("0", "off", "disable", "disabled"):
        egl = _text_of(sys.executable, "-I", str(Path(__file__).with_name("egl_probe.py")))
    cure = "apt-get install libegl1 libopengl0 libgl1-mesa-dri"
    yield Component("EGL", egl or None, False, "fast rendering; without it rays are cast on the CPU", cure)


def _optional() -> Iterator[Component]:
    for name, (unlocks, cure) in OPTIONAL.items():
        yield Component(name, installed_version(name), False, unlocks, cure)


def _guests() -> Iterator[Component]:
    """A guest is looked for in this interpreter, and in its own where one is named."""
    for each in GUESTS:
        found, python = installed_version(each.distribution), os.environ.get(each.variable)
        unlocks = f"{each.unlocks}; here, or in the interpreter that {each.variable} names"
        if found is None and python:
            versions = versions_in(python, [each.distribution])
            found = versions[each.distribution] if versions else None
            missing = "lacks it" if versions else "does not run"
            found, unlocks = (f"{found} ({python})", unlocks) if found else (None, f"{unlocks} ({python} {missing})")
        yield Component(each.distribution, found, False, unlocks, each.cure)


def _isaaclab() -> Iterator[Component]:
    """IsaacLab has an environment of its own, which is looked at where one is named."""
    python, found = os.environ.get(PYTHON_VARIABLE), None
    problems = check_python(python)
    if python and not problems:
        versions = probe(python) or {}
        found = f"{versions.get('isaaclab')} ({python})"
    unlocks = f"--env isaaclab, in the environment that {PYTHON_VARIABLE} names"
    if python and problems:
        unlocks += f" ({problems[0].cause})"
    yield Component("isaaclab", found, False, unlocks, "rlinf-isaac isaaclab setup --venv PATH")


def _requirements() -> list[Requirement]:
    """What the base install needs, extras left out."""
    parsed = map(Requirement, importlib.metadata.requires(DISTRIBUTION) or ())
    return [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]


def _torch_cuda() -> str:
    """``CPU build`` or the CUDA version torch was built for, read from its version.py."""
    spec = importlib.util.find_spec("torch")
    text = Path(spec.origin).with_name("version.py").read_text() if spec and spec.origin else ""
    match = re.search(r"^cuda[^=]*= *'([^']+)'", text, re.MULTILINE)
    return f"CUDA {match[1]}" if match else "CPU build"


def _text_of(*command: str) -> str:
    return (output_of(*command) or b"").decode(errors="replace").strip()
