"""Which norm stats a verb uses: one line for each that differs, with its digest and where it is from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlflow_project.cli._session import stdout
from rlinf_isaac.ground.digest import bytes_digest

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle
    from rlinf_isaac.checkpoint.trained_with import NormStatsFile


def print_trained(data: bytes, origin: str) -> None:
    """Those of a training, and where they come from."""
    _print(data, origin)


def print_played(bundles: Sequence[Bundle], given: NormStatsFile | None = None) -> str | None:
    """Those that these checkpoints are played with. Returns the digest, unless there are several."""
    if given is not None:
        return _print(given.data, f"given, {given.path}")
    found: dict[bytes, list[Bundle]] = {}
    for bundle in bundles:
        found.setdefault(bundle.norm_stats_bytes, []).append(bundle)
    digests = []
    for data, same in found.items():
        others = f" and {len(same) - 1} more" if len(same) > 1 else ""
        digests.append(
            _print(data, f"in the checkpoint, {same[0].path / same[0].asset_id / 'norm_stats.json'}{others}")
        )
    return digests[0] if len(digests) == 1 else None


def _print(data: bytes, origin: str) -> str:
    digest = bytes_digest(data)
    stdout.print(f"norm stats   sha256 {digest} ({origin})")
    return digest
