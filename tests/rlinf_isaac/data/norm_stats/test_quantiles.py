from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rlinf_isaac.data.norm_stats.quantiles import QuantileSearch, from_sort_keys, sort_keys

QUANTILES = (1e-9, 0.01, 0.5, 0.99, 1.0)
DTYPES = [np.dtype(np.float32), np.dtype(np.float64)]


def floats(dtype: np.dtype, sizes: st.SearchStrategy[int]) -> st.SearchStrategy[np.ndarray]:
    """Subnormals, huge values, both zeros; values drawn from a few, so that ties and crowded digits occur."""
    elements = st.floats(width=dtype.itemsize * 8, allow_nan=False, allow_infinity=False)
    crowded = st.lists(elements, min_size=1, max_size=3).flatmap(st.sampled_from)
    return hnp.arrays(dtype, sizes, elements=elements | crowded)


def search(dtype: np.dtype, pieces) -> list[float]:
    result = QuantileSearch(QUANTILES, dtype)
    for _ in range(result.passes):
        for piece in pieces:
            result.add(*piece)
        result.end_pass()
    return result.values


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=50)
@given(st.data())
def test_equal_to_the_sorted_sample(dtype, data):
    values = data.draw(floats(dtype, st.integers(1, 60)))
    expected = np.quantile(values, QUANTILES, method="inverted_cdf").tolist()
    cut = data.draw(st.integers(0, len(values)))
    assert search(dtype, [(values[:cut],), (values[cut:],)]) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None, max_examples=50)
@given(st.data())
def test_weights_stand_for_repetition(dtype, data):
    values = data.draw(floats(dtype, st.integers(1, 40)))
    weights = data.draw(hnp.arrays(np.float64, len(values), elements=st.integers(0, 9)))
    if not weights.any():
        weights[data.draw(st.integers(0, len(weights) - 1))] = 1
    expected = np.quantile(np.repeat(values, weights.astype(int)), QUANTILES, method="inverted_cdf").tolist()
    assert search(dtype, [(values, weights)]) == expected


@pytest.mark.parametrize("dtype", DTYPES)
@settings(deadline=None)
@given(st.data())
def test_keys_sort_as_the_floats_and_lead_back(dtype, data):
    values = data.draw(floats(dtype, st.integers(1, 20)))
    keys = sort_keys(values)
    assert from_sort_keys(keys, dtype).tobytes() == values.tobytes()
    assert np.array_equal(values[np.argsort(keys)], np.sort(values))
