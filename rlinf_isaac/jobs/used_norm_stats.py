"""Tells the user which norm stats a job uses: a line with digest and origin for each that differs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.jobs import Say

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.checkpoint.trained_with import NormStatsFile


def say_trained(data: bytes, origin: str, say: Say) -> str:
    """Tell the user the norm stats of a training and their origin. Returns their digest."""
    digest = bytes_digest(data)
    say(f"norm stats   sha256 {digest} ({origin})")
    return digest


def say_played(bundles: Sequence[Bundle], given: NormStatsFile | None, say: Say) -> str | None:
    """Tell the user the norm stats of evaluated checkpoints. Returns their digest, or None if they differ."""
    if given is not None:
        return say_trained(given.data, f"given, {given.path}", say)
    found: dict[bytes, list[Bundle]] = {}
    for bundle in bundles:
        found.setdefault(bundle.norm_stats_bytes, []).append(bundle)
    digests = []
    for data, same in found.items():
        others = f" and {len(same) - 1} more" if len(same) > 1 else ""
        place = same[0].path / same[0].asset_id / "norm_stats.json"
        digests.append(say_trained(data, f"in the checkpoint, {place}{others}", say))
    return digests[0] if len(digests) == 1 else None
