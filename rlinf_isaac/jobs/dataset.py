"""The job that makes a LeRobot dataset of HDF5 demonstrations: its options are checked, and the files are read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.ground.errors import Problem
from rlinf_isaac.ground.events import Progress
from rlinf_isaac.jobs import Say, options, silent

if TYPE_CHECKING:
    from rlinf_isaac.data.hdf5.plan import Plan
    from rlinf_isaac.preflight import Findings

MOST_HZ = 10_000
MOST_PROMPT = 10_000


@dataclass(frozen=True)
class ImportJob:
    """An import, and where its dataset will lie."""

    plan: Plan
    root: Path


def check(
    findings: Findings,
    *,
    files: tuple[str, ...],
    cameras: str,
    state: str,
    action_key: str,
    fps: str,
    prompt: str,
    mask: str,
    failed: str,
    name: str,
    output: Path,
    show: Callable[[Progress], None] = lambda progress: None,
) -> ImportJob | None:
    """Check these options, and read everything of the files but their images; None where `findings` has errors."""
    from rlinf_isaac.data.hdf5.choice import Wanted, parse_cameras
    from rlinf_isaac.data.hdf5.plan import Request, make_plan
    from rlinf_isaac.data.hdf5.recipe import check_record, check_same, recipe
    from rlinf_isaac.data.hdf5.source import NAME
    from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings
    from rlinf_isaac.ground.probe import check_free_space, check_output

    paths = _paths(files)
    chosen, wrong = (None, []) if cameras == options.AUTO else parse_cameras("" if cameras == options.NONE else cameras)
    if wrong:
        cause = f"--cameras {' '.join(wrong)} does not pair each key with one feature"
        findings.add([Problem("bad-cameras", cause, "write table_cam=observation.images.front,wrist_cam=...")])
    keys = None if state == options.AUTO else options.words(state)
    if keys is not None and (not keys or len(keys) != len(set(keys))):
        cause = f"--state {state} names {'a key twice' if keys else 'no key'}"
        findings.add([Problem("bad-state", cause, "write keys of the file, as in eef_pos,eef_quat,gripper_pos")])
    rate = None if fps == options.AUTO else _rate(fps)
    if fps != options.AUTO and rate is None:
        cause = f"--fps {fps} is not a whole number from 1 to {MOST_HZ}"
        findings.add([Problem("fps-value", cause, "give the rate of the actions in Hz")])
    findings.add(_check_prompt(prompt))
    if len(paths) != len(set(paths)):
        findings.add([Problem("hdf5-twice", "a file is given twice", "give each file once")])
    title = paths[0].stem if name == options.AUTO and paths else name
    if not NAME.fullmatch(title) or title.startswith("."):
        cause = f"--name {title} is not the name of a directory"
        findings.add([Problem("bad-name", cause, "give a name of letters, digits, '.', '-' and '_', without a path")])
    findings.add(check_output(output))

    found = FoldedFindings()
    wanted = Wanted(chosen, keys, action_key)
    given = None if prompt == options.AUTO else prompt.strip()
    request = Request(paths, wanted, rate, given, None if mask == options.NONE else mask, failed == "keep")
    plan = None
    with findings.collect():
        plan = make_plan(found, request, show)
    findings.add(found.problems())
    if plan is None or findings.errors:
        return None
    root = output.absolute() / "datasets" / title
    findings.add([*check_record(plan), *check_free_space(output, plan.stored_bytes)])
    if root.exists():
        with findings.collect():
            check_same(root, recipe(plan, {}), hashed=False)
    return None if findings.errors else ImportJob(plan, root)


def say_plan(job: ImportJob, say: Say = silent) -> None:
    """Say what becomes of what, and what is left out."""
    plan, chosen = job.plan, job.plan.chosen
    for camera in chosen.cameras:
        say(f"camera       {camera.key} -> {camera.feature}, {camera.width} x {camera.height}")
    say(f"state        {', '.join(f'{part.key} ({part.dims})' for part in chosen.state)}")
    say(f"action       {chosen.action.key} ({chosen.action.dims})")
    for key, reason in chosen.left_out.items():
        say(f"left out     {key}: {reason}")
    say(f"rate         {plan.fps} Hz, from {plan.fps_from}")
    for prompt in sorted({demo.prompt or "" for demo in plan.demos})[:10]:
        say(f"prompt       {prompt}")
    said = [demo.success for demo in plan.demos]
    counts = f"{said.count(True)} successful, {said.count(False)} failed, {said.count(None)} unmarked"
    dropped = f"; {len(plan.dropped)} failed ones left out" if plan.dropped else ""
    say(f"episodes     {len(plan.demos)} ({counts}), {plan.frames} frames{dropped}")


def _paths(files: tuple[str, ...]) -> tuple[Path, ...]:
    """Files of the command line; MLproject passes several as one word, separated by commas."""
    if len(files) == 1 and "," in files[0] and not Path(files[0]).exists():
        files = tuple(part.strip() for part in files[0].split(",") if part.strip())
    return tuple(Path(file).absolute() for file in files)


def _check_prompt(prompt: str) -> Iterator[Problem]:
    if not prompt.strip():
        cause = "--prompt is empty, but policies are conditioned on it"
        yield Problem("empty-prompt", cause, "give the instruction that the demonstrations follow")
    elif len(prompt) > MOST_PROMPT or prompt.encode(errors="replace").decode() != prompt:
        cause = f"--prompt is no text of at most {MOST_PROMPT} characters"
        yield Problem("bad-prompt", cause, "give the instruction that the demonstrations follow, in UTF-8")


def _rate(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 and 1 <= int(text) <= MOST_HZ else None
