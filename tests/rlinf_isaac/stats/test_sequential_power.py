from __future__ import annotations

import math

import numpy as np
import pytest

from rlinf_isaac.stats.power import Discordance
from rlinf_isaac.stats.sequential import log_e_value
from rlinf_isaac.stats.sequential_power import decided, episodes


@pytest.mark.parametrize(
    ("rates", "n", "checkpoints"), [((0.8, 0.7), 200, 2), ((0.8, 0.6), 64, 4), ((0.5, 0.5), 100, 2)]
)
def test_it_is_what_a_simulation_finds(rates, n, checkpoints):
    discordance, repetitions = Discordance.of(rates, 0.3), 10_000
    draws = np.random.default_rng(1).random((repetitions, n))
    wins = np.cumsum(draws < discordance.wins, axis=1)
    differ = np.cumsum(draws < discordance.wins + discordance.losses, axis=1)
    losses = differ - wins
    grid = log_e_value(np.arange(n + 1)[:, None], np.arange(n + 1)[None, :])
    simulated = float((grid[wins, losses].max(axis=1) >= math.log(checkpoints / 0.05)).mean())
    assert decided(discordance, n, checkpoints) == pytest.approx(simulated, abs=0.015)  # three standard errors


def test_the_number_of_seeds_is_the_smallest():
    discordance = Discordance.of((0.8, 0.65), 0.3)
    enough = episodes(discordance)
    assert decided(discordance, enough) >= 0.8 > decided(discordance, enough - 1)
    assert episodes(Discordance(0.1, 0.1)) is None
    assert episodes(Discordance(0.2, 0.199), most=500) is None
    assert decided(Discordance(0.0, 0.0), 50) == 0.0


def test_what_is_counted_already_counts():
    discordance = Discordance(0.2, 0.1)
    enough = episodes(discordance, counted=(12, 3), wanted=0.5)
    draws = np.random.default_rng(2).random((10_000, enough))
    wins = 12 + np.cumsum(draws < discordance.wins, axis=1)
    losses = 3 + np.cumsum((draws >= discordance.wins) & (draws < 0.3), axis=1)
    simulated = float((log_e_value(wins, losses).max(axis=1) >= math.log(40)).mean())
    assert enough < episodes(discordance, wanted=0.5)
    assert simulated == pytest.approx(0.5, abs=0.04)  # one seed more or less makes 0.01
