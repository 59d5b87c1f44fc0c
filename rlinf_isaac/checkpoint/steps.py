"""Resolves ``--ckpt-root R --ckpt-steps 25000,30000`` to bundle directories."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE, Manifest
from rlinf_isaac.ground.errors import InvalidJob, Problem

CHECKPOINTS = "checkpoints"
"""Directory of a training's checkpoints, below its own."""
# OpenPI names a checkpoint <step>, RLinf global_step_<step>, many scripts step_<step>.
_STEP_DIRECTORY = re.compile(r"(?:global_step_|step_)?(\d+)")


def parse_steps(text: str) -> list[int] | None:
    """Checkpoint steps from the command line, in ascending order: ``"25000,30000"`` or ``"25000 30000"``.

    Returns None for ``"auto"``, which stands for all checkpoints of the root.

    Raises:
        InvalidJob: with one problem per word that is not a step or is given twice.
    """
    words = text.replace(",", " ").split()
    if words == ["auto"]:
        return None
    cure = "give steps separated by commas or spaces, such as 25000,30000, or auto for all"
    problems, steps = [], set()
    if not words:
        problems.append(Problem("no-steps", "no checkpoint step is given", cure))
    for word in words:
        # isdecimal() also accepts digits of other scripts. A number of 13 digits or more must be a typing error.
        if not (word.isascii() and word.isdecimal() and len(word) < 13):
            problems.append(Problem("bad-step", f"checkpoint step {word[:40]!r} is not a non-negative integer", cure))
        elif int(word) in steps:
            problems.append(Problem("duplicate-step", f"checkpoint step {int(word)} is given twice", cure))
        else:
            steps.add(int(word))
    if problems:
        raise InvalidJob(problems)
    return sorted(steps)


def find_bundles(root: str | Path) -> dict[int, Path]:
    """Step -> bundle directory below `root` (``<step>``, ``step_<step>``, ``global_step_<step>``), ascending.

    Raises:
        InvalidJob: two directories claim the same step.
    """
    bundles: dict[int, Path] = {}
    for step, directory in _step_directories(Path(root)):
        if not (directory / MANIFEST_FILE).is_file():
            continue
        if step in bundles:
            raise InvalidJob.of(
                "ambiguous-step",
                f"{bundles[step]} and {directory} are both checkpoints of step {step}",
                "move one of them out of the checkpoint root",
            )
        bundles[step] = directory
    return dict(sorted(bundles.items()))


def select_bundles(root: str | Path, steps: Sequence[int] | None) -> list[Path]:
    """The bundles of `steps` below `root`, in ascending order; all of them if `steps` is None.

    `root` may also be the directory of a training, which has them below ``checkpoints``, or a single bundle.

    Raises:
        InvalidJob: `root` is missing or holds no bundle; a step has no bundle (the message names the nearest steps) or
            only a directory without manifest; or a bundle's manifest has another step than its directory's name.
    """
    root = Path(root)
    cure = "name the directory of a training, its checkpoints, one of them, the id of its run, or models:/NAME@ALIAS"
    if not root.is_dir():
        raise InvalidJob.of("missing-ckpt-root", f"checkpoint root {root} is not a directory", cure)
    if (root / MANIFEST_FILE).is_file():
        return select_named([root], steps, str(root))
    bundles, unsealed = find_bundles(root), _unsealed(root)
    if not bundles and not unsealed and (below := root / CHECKPOINTS).is_dir():
        root, bundles, unsealed = below, find_bundles(below), _unsealed(below)
    if not bundles and not unsealed:
        raise InvalidJob.of("empty-ckpt-root", f"checkpoint root {root} holds no checkpoint bundle", cure)
    wanted = sorted(bundles.keys() | unsealed.keys() if steps is None else set(steps))
    problems = []
    for step in wanted:
        if step in unsealed and step not in bundles:
            cause = f"{unsealed[step]} is not a checkpoint bundle: it has no {MANIFEST_FILE}"
            cure = f"copy the bundle again, complete, or make one of it: rlinf-isaac bundle make {unsealed[step]}"
            problems.append(Problem("not-a-bundle", cause, cure))
        elif step not in bundles:
            problems.append(_missing(step, bundles, f"checkpoint root {root}"))
        elif (sealed := _sealed_step(bundles[step])) not in (None, step):
            problems.append(
                Problem(
                    "wrong-step",
                    f"{bundles[step]} is the checkpoint of step {sealed}, according to its {MANIFEST_FILE}",
                    f"rename the directory to {sealed}",
                )
            )
    if problems:
        raise InvalidJob(problems)
    return [bundles[step] for step in wanted]


def select_named(paths: Iterable[Path], steps: Sequence[int] | None, name: str) -> list[Path]:
    """The bundles of `steps` among `paths`, in ascending order; all of them if `steps` is None.

    Args:
        paths: directories of bundles; their steps are those of their manifests.
        steps: the wanted steps.
        name: what the user has named, for the message.

    Raises:
        InvalidJob: there is no bundle of a step.
    """
    bundles = {step: path for path in paths for step in [_sealed_step(path)] if step is not None}
    if steps is None:
        return [path for _, path in sorted(bundles.items())] or list(paths)
    if problems := [_missing(step, bundles, name) for step in steps if step not in bundles]:
        raise InvalidJob(problems)
    return [bundles[step] for step in sorted(set(steps))]


def _missing(step: int, bundles: Mapping[int, Path], name: str) -> Problem:
    nearest = sorted(sorted(bundles, key=lambda other: (abs(other - step), other))[:2])
    cure = f"nearest: {', '.join(map(str, nearest))}; all: {_abridge(sorted(bundles))}"
    return Problem("missing-step", f"{name} has no checkpoint of step {step}", cure)


def step_of(name: str) -> int | None:
    """The step in the name of a checkpoint's directory, or None."""
    match = _STEP_DIRECTORY.fullmatch(name)
    return int(match[1]) if match else None


def _step_directories(root: Path) -> Iterator[tuple[int, Path]]:
    for directory in sorted(root.iterdir()) if root.is_dir() else ():
        step = step_of(directory.name)
        if step is not None and directory.is_dir():
            yield step, directory


def _unsealed(root: Path) -> dict[int, Path]:
    """Step -> directory that is not empty and has no manifest."""
    return {
        step: directory
        for step, directory in _step_directories(root)
        if not (directory / MANIFEST_FILE).is_file() and any(directory.iterdir())
    }


def _sealed_step(directory: Path) -> int | None:
    """The step in a bundle's manifest; None if the manifest is damaged, which `read_bundle` reports in detail."""
    try:
        return Manifest.read(directory / MANIFEST_FILE).step
    except (OSError, ValueError):
        return None


def _abridge(steps: list[int]) -> str:
    """Up to eight steps; of more, the first three and the last three."""
    if len(steps) <= 8:
        return ", ".join(map(str, steps))
    return f"{', '.join(map(str, steps[:3]))}, ..., {', '.join(map(str, steps[-3:]))} ({len(steps)} in all)"
