"""What an import will read and write, and everything that is wrong with the files, found before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlinf_isaac.data.hdf5.choice import Chosen, Wanted, check_demo, choose
from rlinf_isaac.data.hdf5.file import expansion_problem, find, hdf5_errors, open_hdf5
from rlinf_isaac.data.hdf5.source import Demo, SourceFile, check_rate, read_source
from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings, first_few
from rlinf_isaac.ground.errors import InvalidJob
from rlinf_isaac.ground.events import Progress

LABEL = "check"


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        files: in the order in which their demonstrations are numbered.
        wanted: arrays.
        fps: control rate in Hz; None: what the files say.
        prompt: the instruction of every episode; None: what the files say.
        mask: name of robomimic's list of demonstrations; None: all.
        keep_failed: whether demonstrations that the file calls failed are taken, too.
    """

    files: tuple[Path, ...]
    wanted: Wanted
    fps: int | None = None
    prompt: str | None = None
    mask: str | None = None
    keep_failed: bool = False


@dataclass(frozen=True)
class Plan:
    """An import that can start.

    Attributes:
        request: what was asked for.
        files: what they say.
        chosen: arrays.
        fps: control rate in Hz.
        fps_from: who says so.
        demos: demonstrations to take, with their prompts.
        dropped: demonstrations that failed and are left out.
    """

    request: Request
    files: tuple[SourceFile, ...]
    chosen: Chosen
    fps: int
    fps_from: str
    demos: tuple[Demo, ...]
    dropped: tuple[Demo, ...]

    @property
    def frames(self) -> int:
        """Number of frames of the dataset."""
        return sum(demo.frames for demo in self.demos)

    @property
    def stored_bytes(self) -> int:
        """About what the dataset takes: as much as the files, whose gzip packs about as well as PNG."""
        return sum(file.path.stat().st_size for file in self.files)


def make_plan(
    found: FoldedFindings, request: Request, show: Callable[[Progress], None] = lambda progress: None
) -> Plan | None:
    """Read everything but the images. None where `found` has errors.

    Args:
        found: collects what is wrong, all of it.
        request: what was asked for.
        show: is told how many demonstrations have been looked at.

    Raises:
        InvalidJob: h5py is not installed.
    """
    files: list[SourceFile] = []
    for path in request.files:
        try:
            with open_hdf5(path) as file, hdf5_errors(path):
                files.append(read_source(found, file, request.wanted.action, request.mask))
        except InvalidJob as error:
            if any(problem.code == "no-h5py" for problem in error.problems):
                raise
            found.extend(error.problems)
    if not files:
        return None
    read = tuple(files)
    rate = check_rate(found, read, request.fps)
    names = sorted({str(file.env_args["env_name"]) for file in read if file.env_args.get("env_name")})
    if len(names) > 1:
        cause = f"the files are of several environments: {first_few(names)}"
        found.add("hdf5-environments", cause, "import them one by one, unless they are one task", "warning")
    demos, dropped = _demos(found, read, request)
    chosen = None
    if demos:
        chosen = found.attempt(_choose, found, demos[0], request.wanted)
    if chosen is not None:
        _check_demos(found, read, demos, chosen, show)
    errors = [problem for problem in found.problems() if problem.level == "error"]
    if errors or rate is None or chosen is None:
        return None
    return Plan(request, read, chosen, *rate, demos, dropped)


def _demos(
    found: FoldedFindings, files: tuple[SourceFile, ...], request: Request
) -> tuple[tuple[Demo, ...], tuple[Demo, ...]]:
    """Demonstrations to take, with their prompts, and those that failed."""
    demos: list[Demo] = []
    dropped: list[Demo] = []
    silent = []
    for file in files:
        for demo in file.demos:
            if demo.success is False and not request.keep_failed:
                dropped.append(demo)
                continue
            prompt = request.prompt if request.prompt is not None else demo.prompt or file.prompt
            if prompt is None:
                silent.append(f"{file.path.name} {demo.name}")
            demos.append(replace(demo, prompt=prompt))
    if silent:
        cause = f"the files have no instruction for {first_few(silent)}"
        found.add("hdf5-no-prompt", cause, "pass --prompt with the instruction that these demonstrations follow")
    if dropped and not demos:
        cause = f"all {len(dropped)} demonstrations are marked as failed"
        cure = "pass --failed keep to import them (IsaacLab calls all failed where the task has no term `success`)"
        found.add("hdf5-all-failed", cause, cure)
    return tuple(demos), tuple(dropped)


def _choose(found: FoldedFindings, demo: Demo, wanted: Wanted) -> Chosen | None:
    with open_hdf5(demo.path) as file, hdf5_errors(demo.path):
        return choose(found, find(file, f"/data/{demo.name}"), wanted)


def _check_demos(
    found: FoldedFindings,
    files: tuple[SourceFile, ...],
    demos: tuple[Demo, ...],
    chosen: Chosen,
    show: Callable[[Progress], None],
) -> None:
    done = 0
    for source in files:
        path, unpacked = source.path, 0
        with open_hdf5(path) as file:
            for demo in (demo for demo in demos if demo.path == path):
                unpacked += found.attempt(_check_demo, found, file, demo, chosen) or 0
                done += 1
                show(Progress(LABEL, done, len(demos)))
        if (problem := expansion_problem(path, unpacked)) is not None:
            found.extend([problem])


def _check_demo(found: FoldedFindings, file: Any, demo: Demo, chosen: Chosen) -> int:
    with hdf5_errors(demo.path):
        return check_demo(found, find(file, f"/data/{demo.name}"), demo, chosen)
