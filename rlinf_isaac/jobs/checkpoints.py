"""Finds the checkpoints from which a job starts, and adds the assumptions about their training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.ground.errors import BundleError
from rlinf_isaac.ground.hub import is_hub

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.preflight import Findings


Locate = Callable[[str], "Sequence[Path] | None"]
"""Finds the bundles that a name which is no path stands for; None if it is no such name."""


def chosen_bundles(
    findings: Findings, ckpt_root: str, ckpt_steps: str, *, quick: bool, locate: Locate | None = None
) -> list[Bundle]:
    """The checkpoints that ``--ckpt-root`` and ``--ckpt-steps`` name. With `quick` their weights are not hashed.

    The root may be one bundle, and ``hf://org/name[@revision][/folder]`` is downloaded.
    """
    from rlinf_isaac.checkpoint.bundle import parse_steps, read_bundle

    bundles = []
    with findings.collect():
        steps = parse_steps(ckpt_steps)
        for path in _paths(ckpt_root, steps, locate):
            with findings.collect():
                bundles.append(read_bundle(path, verify=not quick))
    return bundles


def _paths(root: str, steps: Sequence[int] | None, locate: Locate | None) -> list[Path]:
    """The directories of the bundles.

    Raises:
        BundleError: the root is one of the hub that cannot be downloaded, or that holds another format than ours.
        InvalidJob: there is no bundle, or none of one of the `steps`.
    """
    from rlinf_isaac.checkpoint.bundle import find_bundles, select_bundles
    from rlinf_isaac.checkpoint.foreign.hub import fetch
    from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE
    from rlinf_isaac.checkpoint.steps import select_named

    if is_hub(root):
        path = fetch(root).path
        if not (path / MANIFEST_FILE).is_file() and not find_bundles(path):
            cause = f"{root} holds weights in another format than this project's bundles"
            raise BundleError.of("not-a-bundle", cause, f"make a bundle of it: rlinf-isaac bundle make {root}")
        return select_bundles(path, steps)
    named = locate(root) if locate is not None and not Path(root).exists() else None
    return select_bundles(root, steps) if named is None else select_named(named, steps, root)


def prompts_of(bundle: Bundle) -> list[str]:
    """The instructions that a checkpoint was trained with, as far as they are known."""
    return list((bundle.config.get("prompts") or {}).values())


def with_assumptions(
    findings: Findings, bundles: Sequence[Bundle], text: str, overrides: Sequence[str] = ()
) -> list[Bundle]:
    """The bundles, with the facts that ``--assume`` gives about their training in their config (`checkpoint.facts`)."""
    from rlinf_isaac.checkpoint.facts import assume, parse_assumptions

    told = list(bundles)
    with findings.collect():
        given = parse_assumptions(text)
        told = [assume(bundle, given, overrides) for bundle in bundles]
    return told
