"""Finds the checkpoints from which a job starts, and adds the assumptions about their training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rlinf_isaac.ground.errors import BundleError
from rlinf_isaac.ground.hub import is_hub

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.preflight import Findings


def chosen_bundles(findings: Findings, ckpt_root: str, ckpt_steps: str, *, quick: bool) -> list[Bundle]:
    """The checkpoints that ``--ckpt-root`` and ``--ckpt-steps`` name. With `quick` their weights are not hashed.

    ``hf://org/name[@revision][/folder]`` is downloaded: one bundle, or a folder with one per step.
    """
    from rlinf_isaac.checkpoint.bundle import parse_steps, read_bundle, select_bundles

    bundles = []
    with findings.collect():
        steps = parse_steps(ckpt_steps)
        if is_hub(ckpt_root):
            paths = _of_hub(ckpt_root, steps)
        else:
            paths = select_bundles(ckpt_root, steps)
        for path in paths:
            with findings.collect():
                bundles.append(read_bundle(path, verify=not quick))
    return bundles


def _of_hub(uri: str, steps: Sequence[int] | None) -> list[Path]:
    """The bundles of a repository.

    Raises:
        BundleError: it cannot be downloaded, or holds another format than ours.
        InvalidJob: it has no bundle of one of the `steps`.
    """
    from rlinf_isaac.checkpoint.bundle import find_bundles, read_bundle, select_bundles
    from rlinf_isaac.checkpoint.foreign.hub import fetch
    from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE

    fetched = fetch(uri)
    if (fetched.path / MANIFEST_FILE).is_file():
        if steps and steps != [step := read_bundle(fetched.path, verify=False).step]:
            cause = f"{uri} is the checkpoint of step {step}"
            raise BundleError.of("missing-step", cause, "leave --ckpt-steps out")
        return [fetched.path]
    if not find_bundles(fetched.path):
        cause = f"{uri} holds weights in another format than this project's bundles"
        raise BundleError.of("not-a-bundle", cause, f"make a bundle of it: rlinf-isaac bundle make {uri}")
    return select_bundles(fetched.path, steps)


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
