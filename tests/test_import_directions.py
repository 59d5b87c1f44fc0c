"""Rooms import downwards: no import runs back up, and there is no circle between rooms or between modules."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

PROJECT = Path(__file__).parents[1]
PACKAGES = ("rlinf_isaac", "mlflow_project")

# The rooms from the ground up: a room imports only rooms that are listed before it. A room is a package with all that
# lies below it, without what has a line of its own. A name that ends in a colon is one module: a door that has to stand
# higher than the package it lies in.
ROOMS = """
rlinf_isaac:                              the version
rlinf_isaac.ground
rlinf_isaac.errors:                       a name of old, for models that are registered
rlinf_isaac.tasks                         what a task is
rlinf_isaac.config
rlinf_isaac.stats
rlinf_isaac.foreign_results              evaluations of other tools
rlinf_isaac.media
rlinf_isaac.envs.identity:                what tells one environment from another
rlinf_isaac.envs.vector:                  what the environment of a task is like
rlinf_isaac.envs.stack_cube
rlinf_isaac.tasks.shipped                 the project's own tasks
rlinf_isaac.envs.host                     anybody's environment
rlinf_isaac.envs.host.worker              runs in the environment's interpreter
rlinf_isaac.envs.mujoco
rlinf_isaac.envs.mujoco.worker            runs in processes of their own
rlinf_isaac.envs.isaaclab
rlinf_isaac.envs.isaaclab.worker          runs in IsaacLab's interpreter
rlinf_isaac.envs                          make_env
rlinf_isaac.envs.conformance              what every environment must do
rlinf_isaac.data.lerobot
rlinf_isaac.data.hdf5                     demonstrations of IsaacLab and robomimic
rlinf_isaac.data.validate
rlinf_isaac.data                          several datasets as one
rlinf_isaac.data.norm_stats
rlinf_isaac.pi0
rlinf_isaac.pi0.fast
rlinf_isaac.pi0.policy:                   the plain path, or the fast one
rlinf_isaac.checkpoint
rlinf_isaac.checkpoint.convert
rlinf_isaac.checkpoint.foreign.said
rlinf_isaac.checkpoint.foreign
rlinf_isaac.engines
rlinf_isaac.engines.local.training
rlinf_isaac.engines.local.sft
rlinf_isaac.engines.local.rl
rlinf_isaac.engines.local
rlinf_isaac.engines.rlinf
rlinf_isaac.engines.rlinf.worker          runs in RLinf's interpreter
rlinf_isaac.engines.rlinf.extension:      documented name of a worker's module
rlinf_isaac.engines.rlinf.driver:         documented name of a worker's module
rlinf_isaac.preflight
rlinf_isaac.jobs
rlinf_isaac.api:                          what rlinf_isaac exports, in its __init__.pyi
mlflow_project:
mlflow_project.vocabulary:                names of tags, metrics and artifacts
mlflow_project.markdown:                  other people's text inside Markdown
mlflow_project.tracking.redact:           takes secrets out of what is printed
mlflow_project.tracking.unreachable:      a store that does not answer, or does not have it
mlflow_project.lineage
mlflow_project.comparison
mlflow_project.tracking
mlflow_project.notify
mlflow_project.reporting
mlflow_project.retention
mlflow_project.watching                   looks at runs from outside
mlflow_project.recorders
mlflow_project.callbacks                  runs in the interpreters of other trainers
mlflow_project.serving
mlflow_project.promotion
mlflow_project.publishing
mlflow_project.tracked
mlflow_project.cli
mlflow_project._api
mlflow_project.api:                       the tracked half of the Python API
mlflow_project.plugins
mlflow_project.lerobot_source:            a name of old, for what is installed already
"""


class Arrow(NamedTuple):
    """An import: line `line` of `module` imports from `imported`."""

    module: str
    imported: str
    line: int

    def __str__(self) -> str:
        return f"{self.module}, line {self.line}, imports {self.imported}"


def modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file of every module of the packages; a package has the name of its folder."""
    names = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            names[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return names


def arrows(root: Path) -> list[Arrow]:
    """Every import of one of our modules by another, inside functions and under TYPE_CHECKING as well: whoever needs
    the type needs to know the module. That importing `a.b` runs `a/__init__.py`, too, does not count."""
    known = modules(root)
    return [
        Arrow(name, imported, line)
        for name, path in known.items()
        for imported, line in _imported(ast.parse(path.read_text(encoding="utf-8")), known)
        if imported != name
    ]


def _imported(tree: ast.AST, known: Mapping[str, Path]) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((each.name, node.lineno) for each in names if each.name in known)
            case ast.ImportFrom(module=str(module), names=names, level=0) if module.partition(".")[0] in PACKAGES:
                for each in names:
                    name = f"{module}.{each.name}"
                    yield (name if name in known else module), node.lineno
            case ast.ImportFrom(level=level) if level:
                raise AssertionError(f"line {node.lineno}: write a relative import with its whole name")


def order() -> dict[str, int]:
    """Room -> its place, from the ground up."""
    return {line.split()[0]: place for place, line in enumerate(ROOMS.strip().splitlines())}


def room_of(module: str, rooms: Mapping[str, int]) -> str:
    """The line that a module belongs to."""
    if f"{module}:" in rooms:
        return f"{module}:"
    name = module
    while name:
        if name in rooms:
            return name
        name = name.rpartition(".")[0]
    raise AssertionError(f"{module} is in no room: give it a line in ROOMS, above what it imports")


def between_rooms(found: list[Arrow]) -> dict[tuple[str, str], list[Arrow]]:
    """(room, room that it imports) -> the imports."""
    rooms = order()
    pairs: dict[tuple[str, str], list[Arrow]] = {}
    for each in found:
        pair = room_of(each.module, rooms), room_of(each.imported, rooms)
        if pair[0] != pair[1]:
            pairs.setdefault(pair, []).append(each)
    return pairs


def running_back(found: list[Arrow]) -> list[str]:
    """The imports of a room that stands higher."""
    rooms = order()
    return [
        str(each)
        for (room, imported), those in between_rooms(found).items()
        for each in those
        if rooms[imported] > rooms[room]
    ]


def circle(found: list[Arrow]) -> list[str]:
    """Modules that import each other in a circle, if there are any."""
    graph: dict[str, set[str]] = {}
    for each in found:
        graph.setdefault(each.module, set()).add(each.imported)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


@pytest.fixture(scope="module")
def found() -> list[Arrow]:
    return arrows(PROJECT)


def test_no_import_runs_back_up(found):
    assert running_back(found) == []


def test_modules_import_each_other_in_no_circle(found):
    """Rooms cannot, where no import runs back up."""
    assert circle(found) == []


def test_every_room_is_there(found):
    rooms = order()
    assert set(rooms) == {room_of(name, rooms) for name in modules(PROJECT)}


def test_workers_are_imported_by_nothing_here(found):
    """They run in other interpreters, and import what is not here; their documented names alone pass them on."""
    rooms = ("engines.rlinf", "envs.isaaclab", "envs.host", "envs.mujoco")
    workers = tuple(f"rlinf_isaac.{name}.worker" for name in rooms)
    doors = {"rlinf_isaac.engines.rlinf.extension", "rlinf_isaac.engines.rlinf.driver"}
    ours = [each for each in found if not each.module.startswith(workers)]
    outside = {each.module for each in ours if each.imported.startswith(workers)}
    assert outside == doors


@pytest.mark.parametrize(
    "line",
    [
        "from rlinf_isaac.checkpoint.bundle import read_bundle",
        "import rlinf_isaac.checkpoint.bundle",
        "from rlinf_isaac.checkpoint import bundle",
        "def inside():\n    from rlinf_isaac.checkpoint import bundle",
        "if TYPE_CHECKING:\n    from rlinf_isaac.checkpoint.bundle import Bundle",
    ],
)
def test_an_import_that_runs_back_up_is_found(tmp_path, line):
    write(tmp_path, "rlinf_isaac/checkpoint/bundle.py", "")
    write(tmp_path, "rlinf_isaac/ground/atomic.py", f"from typing import TYPE_CHECKING\n\n{line}\n")
    (back,) = running_back(arrows(tmp_path))
    assert re.fullmatch(r"rlinf_isaac\.ground\.atomic, line \d, imports rlinf_isaac\.checkpoint\.bundle", back)


def test_a_circle_within_a_room_is_found(tmp_path):
    write(tmp_path, "rlinf_isaac/ground/atomic.py", "from rlinf_isaac.ground.errors import Problem\n")
    write(tmp_path, "rlinf_isaac/ground/errors.py", "from rlinf_isaac.ground.cache import folder\n")
    write(tmp_path, "rlinf_isaac/ground/cache.py", "from rlinf_isaac.ground.atomic import write_file\n")
    assert running_back(arrows(tmp_path)) == []
    assert set(circle(arrows(tmp_path))) == {f"rlinf_isaac.ground.{name}" for name in ("atomic", "errors", "cache")}


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)
