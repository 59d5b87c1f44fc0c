from __future__ import annotations

from dataclasses import replace

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.preflight import check_bundles


def codes(problems):
    return [problem.code for problem in problems]


def test_checkpoints_of_one_training_belong_together(small_checkpoints):
    bundles = [read_bundle(small_checkpoints / str(step)) for step in (2, 4, 6)]
    assert check_bundles(bundles) == []
    lineage = dict(bundles[1].lineage) | {"dataset": "0" * 64}
    stranger = replace(bundles[1], manifest=replace(bundles[1].manifest, lineage=lineage))
    assert codes(check_bundles([bundles[0], stranger])) == ["mixed-checkpoints"]
    swapped = replace(bundles[0], norm_stats_bytes=b"{}")
    assert codes(check_bundles([swapped])) == ["norm-stats-mismatch"]
