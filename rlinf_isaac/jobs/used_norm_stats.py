"""Which norm stats a job uses: one line for each that differs, with its digest and where it is from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.jobs import Say

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.checkpoint.trained_with import NormStatsFile


def say_trained(data: bytes, origin: str, say: Say) -> str:
    """Say which norm stats a training uses, and where they come from. Returns their digest."""
    digest = bytes_digest(data)
    say(f"norm stats   sha256 {digest} ({origin})")
    return digest


def say_played(bundles: Sequence[Bundle], given: NormStatsFile | None, say: Say) -> str | None:
    """Say which norm stats these checkpoints are played with. Returns the digest, unless there are several."""
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
