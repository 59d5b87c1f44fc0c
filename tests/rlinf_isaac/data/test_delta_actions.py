from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlinf_isaac.data.delta_actions import check_delta_mask, parse_delta_mask, to_absolute, to_delta
from rlinf_isaac.ground.errors import InvalidJob

COUNTS = st.lists(st.integers(-9, 9).filter(bool), min_size=1, max_size=5)


@given(COUNTS)
def test_notation_is_that_of_make_bool_mask(counts):
    expected = [count > 0 for count in counts for _ in range(abs(count))]
    assert parse_delta_mask(",".join(map(str, counts))) == tuple(expected)


def test_none_and_spaces():
    assert parse_delta_mask("none") == ()
    assert parse_delta_mask(" 2, -1 ") == (True, True, False)


@pytest.mark.parametrize("text", ["", "6,", "6;-1", "0", "six", "6,-0", "1.5", "[6,-1]", "true", "99999"])
def test_anything_else_is_refused(text):
    with pytest.raises(InvalidJob) as error:
        parse_delta_mask(text)
    assert [problem.code for problem in error.value.problems] == ["bad-delta-mask"]


def test_the_dims_must_exist():
    mask = parse_delta_mask("6,-1")
    assert check_delta_mask((), 1, 1) == check_delta_mask(mask, 8, 7) == check_delta_mask(mask, 7, 8) == []
    for dims in ((6, 7), (8, 6)):
        assert [problem.code for problem in check_delta_mask(mask, *dims)] == ["bad-delta-mask"]


def openpi_delta(actions: np.ndarray, state: np.ndarray, mask: tuple[bool, ...]) -> np.ndarray:
    """``DeltaActions.__call__`` of OpenPI's transforms.py, for one sample."""
    dims = len(mask)
    actions[..., :dims] -= np.expand_dims(np.where(mask, state[..., :dims], 0), axis=-2)
    return actions


@given(COUNTS, st.integers(0, 2**32 - 1))
def test_deltas_are_openpis_and_are_undone(counts, seed):
    mask = parse_delta_mask(",".join(map(str, counts)))
    rng = np.random.default_rng(seed)
    actions = rng.normal(size=(3, 4, len(mask) + 1)).astype(np.float32)
    states = rng.normal(size=(3, len(mask) + 2)).astype(np.float32)
    given = actions.copy()
    relative = to_delta(actions, states, mask)
    assert relative.dtype == np.float32
    assert np.array_equal(actions, given), "the input is left as it is"
    expected = [openpi_delta(chunk.copy(), state, mask) for chunk, state in zip(actions, states, strict=True)]
    assert np.array_equal(relative, expected)
    assert np.allclose(to_absolute(relative, states, mask), actions, rtol=0, atol=1e-6)


def test_no_mask_is_no_change():
    actions = np.ones((2, 3, 4), np.float32)
    assert np.array_equal(to_delta(actions, np.ones((2, 1)), ()), actions)
