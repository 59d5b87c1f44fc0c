from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_project.tracking import operations as ops

texts = st.text(max_size=20)
tags = st.dictionaries(texts, texts, max_size=3)
floats = st.floats(allow_nan=False)
any_operation = st.one_of(
    st.builds(ops.StartRun, texts, texts, st.integers(), st.none() | texts, tags, st.none() | texts, st.none() | texts),
    st.builds(ops.LogParams, texts, tags),
    st.builds(
        ops.LogMetrics,
        texts,
        st.integers(),
        st.integers(),
        st.dictionaries(texts, floats, max_size=3),
        st.none() | texts,
        st.none() | st.tuples(texts, texts),
    ),
    st.builds(ops.SetTags, texts, tags),
    st.builds(ops.SetExperimentTag, texts, texts, texts),
    st.builds(ops.LogArtifact, texts, texts, texts),
    st.builds(ops.LogDataset, texts, texts, texts, texts, texts, texts, st.none() | texts, st.none() | texts),
    st.builds(ops.LogModel, texts, texts, texts, st.sampled_from(["input", "output"]), st.integers(), tags, tags),
    st.builds(ops.EndRun, texts, st.sampled_from(["FINISHED", "FAILED", "KILLED", None]), st.integers()),
)


@given(any_operation)
@settings(deadline=None)
def test_decode_is_the_inverse_of_encode(operation):
    line = ops.encode(operation)
    assert "\n" not in line
    assert ops.decode(line) == operation


def test_nan_and_infinity_survive():
    operation = ops.LogMetrics("r", 1, 2, {"a": float("nan"), "b": float("inf")})
    values = ops.decode(ops.encode(operation)).values
    assert values["a"] != values["a"]
    assert values["b"] == float("inf")


@pytest.mark.parametrize("line", ["", "{}", "[]", '{"op":"nonsense"}', '{"op":"params","run":"r"}', "not json"])
def test_anything_else_is_an_error(line):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        ops.decode(line)
