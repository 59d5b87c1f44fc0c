"""The extension under RLinf's own mains (`stock_rlinf`), which know nothing of this project but its name."""

from __future__ import annotations

import pytest
from rlinf_support import ray_cluster, run_stock

from rlinf_isaac.engines.rlinf.results import read_results
from rlinf_isaac.media.video import decode_video

pytestmark = pytest.mark.rlinf

OURS = {"RLINF_EXT_MODULE": "rlinf_isaac.engines.rlinf.extension"}


def test_an_environment_that_returns_no_lists_is_evaluated(tmp_path):
    """RLinf alone ends it with an UnboundLocalError."""
    loose = "env.eval.init_params.id=Loose-v0"
    with ray_cluster() as environment:
        theirs = environment | OURS | {"RLINF_ISAAC_CHAIN_EXT": "stock_rlinf"}
        run_stock("embodied_eval", tmp_path / "results", theirs, loose)
    results = read_results(tmp_path / "results")
    (point,) = results.points
    assert point.values["eval/num_trajectories"] == 8  # 4 environments, 2 rollout epochs
    assert point.values["eval/episode_len"] == 8
    # Eight chunks of a step, the last with the terminal observation as well; the first epoch begins with a reset.
    assert [decode_video(video).frames for video in results.videos] == [10, 9]
