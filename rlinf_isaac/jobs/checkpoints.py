"""Finds the checkpoints from which a job starts, and adds the assumptions about their training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.ground.errors import BundleError, InvalidJob
from rlinf_isaac.ground.hub import is_hub

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.preflight import Findings


def chosen_bundles(findings: Findings, ckpt_root: str, ckpt_steps: str, *, quick: bool) -> list[Bundle]:
    """The checkpoints that ``--ckpt-root`` and ``--ckpt-steps`` name. With `quick` their weights are not hashed.

    The root may be one bundle, and ``hf://org/name[@revision][/folder]`` is downloaded.
    """
    from rlinf_isaac.checkpoint.bundle import parse_steps, read_bundle

    bundles = []
    with findings.collect():
        steps = parse_steps(ckpt_steps)
        for path in _paths(ckpt_root, steps):
            with findings.collect():
                bundles.append(read_bundle(path, verify=not quick))
    return bundles


def _paths(root: str, steps: Sequence[int] | None) -> list[Path]:
    """The directories of the bundles.

    Raises:
        BundleError: the root is one of the hub that cannot be downloaded, or that holds another format than ours.
        InvalidJob: there is no bundle, or none of one of the `steps`.
    """
    from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle, select_bundles
    from rlinf_isaac.checkpoint.foreign.hub import fetch
    from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE

    path = fetch(root).path if is_hub(root) else Path(root)
    if (path / MANIFEST_FILE).is_file():
        if steps and steps != [step := read_bundle(path, verify=False).step]:
            raise InvalidJob.of("missing-step", f"{root} is the checkpoint of step {step}", "leave --ckpt-steps out")
        return [path]
    if is_hub(root) and not find_bundles(path):
        cause = f"{root} holds weights in another format than this project's bundles"
        raise BundleError.of("not-a-bundle", cause, f"make a bundle of it: rlinf-isaac bundle make {root}")
    return select_bundles(path, steps)


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
