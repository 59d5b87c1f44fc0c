"""A training whose environments play in two lanes."""

from __future__ import annotations

from rlinf_isaac.engines.local import LocalEngine
from rlinf_isaac.ground.events import CheckpointSaved, Metrics


def test_what_lanes_have_played_is_what_the_update_scores(make_job):
    """Log-probabilities of the rollout and of the update agree exactly, which a mix-up of rows or calls would show; and
    the same run gives the same weights."""
    digests = []
    for output in ("one", "two"):
        job = make_job("rl.workers=1", "compute.lanes=2", "rl.iterations=2", output=output)
        events = list(LocalEngine().rl(job))
        metrics = [event.values for event in events if isinstance(event, Metrics) and event.step]
        assert [values["train/first_ratio_error"] for values in metrics] == [0.0, 0.0]
        assert all(0 < values["time/gpu_wait_share"] < 1 for values in metrics)
        digests.append([event.digest for event in events if isinstance(event, CheckpointSaved)])
    assert digests[0] == digests[1]
    assert digests[0]
