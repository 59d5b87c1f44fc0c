from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlinf_isaac.data.norm_stats import FeatureStats
from rlinf_isaac.errors import NormStatsError
from rlinf_isaac.pi0.transforms import Normalizer, norm_mode, pad_last, resize_with_pad


def test_resize_keeps_the_right_size() -> None:
    images = np.zeros((2, 16, 16, 3), np.uint8)
    assert resize_with_pad(images, 16) is images


@pytest.mark.parametrize(("height", "width"), [(40, 20), (20, 40), (10, 5), (64, 64), (33, 7)])
def test_resize_pads_with_black_and_keeps_the_aspect(height: int, width: int) -> None:
    resized = resize_with_pad(np.full((1, height, width, 3), 200, np.uint8), 16)
    assert resized.shape == (1, 16, 16, 3)
    assert resized.dtype == np.uint8
    content = resized[0, :, :, 0] > 0
    rows, columns = content.any(1).sum(), content.any(0).sum()
    assert (rows, columns) == (int(16 * height / max(height, width)), int(16 * width / max(height, width)))
    assert (resized[0][content] == 200).all()
    inside = np.flatnonzero(content.any(1)), np.flatnonzero(content.any(0))
    assert [len(lines) and lines[0] for lines in inside] == [(16 - rows) // 2, (16 - columns) // 2]


def test_shrinking_does_not_alias() -> None:
    checkerboard = np.indices((64, 64)).sum(0) % 2 * np.uint8(255)
    resized = resize_with_pad(np.repeat(checkerboard[None, :, :, None].astype(np.uint8), 3, axis=-1), 16)
    assert abs(resized[0, 4:-4, 4:-4].astype(int) - 127).max() <= 2


def test_pad_last() -> None:
    padded = pad_last(np.ones((2, 3)), 5)
    assert padded.tolist() == [[1, 1, 1, 0, 0]] * 2
    with pytest.raises(ValueError, match="do not fit"):
        pad_last(np.ones(6), 5)


def test_norm_mode() -> None:
    assert norm_mode("auto", pi05=False) == "zscore"
    assert norm_mode("auto", pi05=True) == "quantile"
    assert norm_mode("quantile", pi05=False) == "quantile"
    assert norm_mode("zscore", pi05=True) == "zscore"
    with pytest.raises(NormStatsError, match="z-score"):
        norm_mode("z-score", pi05=False)


def test_formulas(norm_stats) -> None:
    stats, x = norm_stats.actions, np.random.default_rng(0).normal(size=(4, 3, 7))
    zscore = Normalizer.of("actions", stats, "zscore").normalize(x)
    np.testing.assert_allclose(zscore, (x - stats.mean) / (stats.std + 1e-6), rtol=1e-6)
    quantile = Normalizer.of("actions", stats, "quantile").normalize(x)
    expected = (x - stats.q01) / (stats.q99 - stats.q01 + 1e-6) * 2.0 - 1.0
    np.testing.assert_allclose(quantile, expected, rtol=1e-6, atol=1e-6)
    assert zscore.dtype == quantile.dtype == np.float32


@settings(deadline=None, max_examples=100)
@given(
    x=hnp.arrays(np.float32, (5, 3), elements=st.floats(-100, 100, width=32)),
    mean=hnp.arrays(np.float64, 3, elements=st.floats(-50, 50)),
    spread=hnp.arrays(np.float64, 3, elements=st.floats(1e-2, 50)),
    mode=st.sampled_from(["zscore", "quantile"]),
)
def test_unnormalize_inverts_normalize(x, mean, spread, mode) -> None:
    stats = FeatureStats(mean=mean, std=spread, q01=mean - spread, q99=mean + spread)
    normalizer = Normalizer.of("state", stats, mode)
    # float32 in between: an error of half a unit in the last place of the normalised value, scaled back.
    atol = 2e-7 * float(np.abs(x - mean).max() + spread.max() + np.abs(x).max())
    np.testing.assert_allclose(normalizer.unnormalize(normalizer.normalize(x)), x, atol=atol, rtol=0)


def test_quantiles_are_the_ends_of_the_range(norm_stats) -> None:
    normalizer = Normalizer.of("state", norm_stats.state, "quantile")
    np.testing.assert_allclose(normalizer.normalize(norm_stats.state.q01), -1, atol=1e-6)
    np.testing.assert_allclose(normalizer.normalize(norm_stats.state.q99), 1, atol=1e-5)


@pytest.mark.parametrize("mode", ["zscore", "quantile"])
def test_statistics_of_more_dims_than_the_data_count_with_their_first(norm_stats, mode) -> None:
    """As those that are published for the width of a model: OpenPI takes ``mean[..., : x.shape[-1]]``."""
    padded = FeatureStats(*(np.append(vector, np.full(24, 7.0)) for vector in norm_stats.state.as_dict().values()))
    longer, exact = (Normalizer.of("state", stats, mode) for stats in (padded, norm_stats.state))
    x = np.random.default_rng(0).normal(size=(5, 8))
    np.testing.assert_array_equal(longer.normalize(x), exact.normalize(x))
    np.testing.assert_array_equal(longer.unnormalize(x), exact.unnormalize(x))


def test_wrong_dims_and_missing_quantiles_are_refused(norm_stats) -> None:
    with pytest.raises(NormStatsError, match="'state' has 20 dims but its norm stats have 8"):
        Normalizer.of("state", norm_stats.state, "zscore").normalize(np.zeros((2, 20)))
    without = dataclasses.replace(norm_stats.state, q01=None)
    with pytest.raises(NormStatsError, match="q01/q99"):
        Normalizer.of("state", without, "quantile")
