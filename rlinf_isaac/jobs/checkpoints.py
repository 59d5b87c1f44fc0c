"""Finds the checkpoints from which a job starts, and adds the assumptions about their training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.preflight import Findings


def chosen_bundles(findings: Findings, ckpt_root: str, ckpt_steps: str, *, quick: bool) -> list[Bundle]:
    """The checkpoints that ``--ckpt-root`` and ``--ckpt-steps`` name. With `quick` their weights are not hashed."""
    from rlinf_isaac.checkpoint.bundle import parse_steps, read_bundle, select_bundles

    bundles = []
    with findings.collect():
        for path in select_bundles(ckpt_root, parse_steps(ckpt_steps)):
            with findings.collect():
                bundles.append(read_bundle(path, verify=not quick))
    return bundles


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
