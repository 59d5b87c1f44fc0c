from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from mlflow_project.watching.charts import bar, curve


def dots(lines: list[str]) -> int:
    return sum((ord(each) - 0x2800).bit_count() for line in lines for each in line if each != " ")


def test_a_falling_line():
    assert curve([(0, 3.0), (3, 0.0)], 2, 1) == ["⠑⢄"]


def test_one_point_and_a_constant():
    assert dots(curve([(5, 1.0)], 4, 2)) == 1
    assert dots(curve([(0, 2.0), (9, 2.0)], 4, 2)) == 8


def test_what_is_not_finite_is_left_out():
    assert curve([(0, 3.0), (1, math.nan), (2, math.inf), (3, 0.0)], 2, 1) == ["⠑⢄"]
    assert curve([(0, math.nan)], 3, 2) == ["   ", "   "]


@given(
    st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=50),
    st.integers(1, 60),
    st.integers(1, 9),
)
def test_every_curve_fills_its_place(values, width, height):
    lines = curve(list(enumerate(values)), width, height)
    assert [len(line) for line in lines] == [width] * height


def test_bars():
    assert bar(0, 4) == "    "
    assert bar(0.5, 4) == "██  "
    assert bar(0.53125, 4) == "██▏ "
    assert bar(7, 4) == "████"
