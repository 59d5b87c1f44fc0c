"""What environments of other people return, as RLinf's env worker takes it. On the real RLinf: test_stock_mains.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rlinf_isaac.engines.rlinf.worker.chunks import with_lists

FIRST, LAST = {"states": torch.zeros(2, 8)}, {"states": torch.ones(2, 8)}
EPISODE = {"success_once": torch.tensor([True, False])}


def chunk(observations: Any, infos: Any, *, ended: bool = False) -> tuple[Any, ...]:
    """What comes out of an environment that returns this."""

    class Theirs:
        def chunk_step(self, chunk_actions: Any) -> tuple[Any, ...]:
            flags = torch.zeros(2, 2, dtype=torch.bool)
            truncations = flags.clone()
            truncations[1, -1] = ended
            return observations, torch.zeros(2, 2), flags, truncations, infos

    return with_lists(Theirs)().chunk_step(torch.zeros(2, 2, 7))


@pytest.mark.parametrize("observations", [LAST, [FIRST, LAST], (FIRST, LAST), [None, LAST]])
@pytest.mark.parametrize("infos", [None, {}, {"a": 1}, [None, {"a": 1}], ({}, None), []])
def test_the_last_observation_and_info_are_where_rlinf_looks(observations, infos):
    found, rewards, terminations, truncations, described = chunk(observations, infos)
    assert isinstance(found, list)
    assert found[-1] is LAST
    assert isinstance(described, list)
    assert all(isinstance(info, dict) for info in described)
    assert "final_info" not in described[-1]
    assert rewards.shape == terminations.shape == truncations.shape == (2, 2)


def test_what_rlinf_takes_already_stays_as_it_is():
    infos = [{}, {"final_info": {"episode": EPISODE}, "final_observation": LAST}]
    found = chunk([FIRST, LAST], infos, ended=True)
    assert found[0] == [FIRST, LAST]
    assert found[-1] == infos


@pytest.mark.parametrize("info", [None, {}, {"episode": EPISODE}])
def test_metrics_of_an_episode_that_has_ended_are_where_rlinf_looks(info):
    last = chunk(LAST, info, ended=True)[-1][-1]
    assert last["final_info"]["episode"] == (EPISODE if info else {})


def test_the_class_keeps_its_name():
    class Theirs:
        """An environment."""

    wrapped = with_lists(Theirs)
    assert (wrapped.__name__, wrapped.__doc__, wrapped.__module__) == ("Theirs", "An environment.", __name__)
    assert issubclass(wrapped, Theirs)
