"""Finds the checkpoints from which a job starts, and adds the assumptions about their training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.preflight import Findings


Locate = Callable[[str], "Sequence[Path] | None"]
"""Finds the bundles that a name which is no path stands for; None if it is no such name."""


def chosen_bundles(
    findings: Findings, ckpt_root: str, ckpt_steps: str, *, quick: bool, locate: Locate | None = None
) -> list[Bundle]:
    """The checkpoints that ``--ckpt-root`` and ``--ckpt-steps`` name. With `quick` their weights are not hashed."""
    from rlinf_isaac.checkpoint.bundle import parse_steps, read_bundle, select_bundles
    from rlinf_isaac.checkpoint.steps import select_named

    bundles = []
    with findings.collect():
        steps = parse_steps(ckpt_steps)
        named = locate(ckpt_root) if locate is not None and not Path(ckpt_root).exists() else None
        for path in select_bundles(ckpt_root, steps) if named is None else select_named(named, steps, ckpt_root):
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
