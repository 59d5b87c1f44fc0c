"""Every number of docs/rlinf_figures.md is what its blocks compute."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "rlinf_figures.md").read_text()
BLOCKS = "\n".join(re.findall(r"^```python\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
FIGURES = re.findall(r"^print\((.*)\)  # (.*)$", BLOCKS, re.MULTILINE)


@pytest.fixture(scope="module")
def names():
    found = {}
    exec(re.sub(r"^print\(.*$", "", BLOCKS, flags=re.MULTILINE), found)
    return found


@pytest.mark.parametrize(("expression", "printed"), FIGURES)
def test_a_figure_is_computed(expression, printed, names):
    assert eval(expression, names) == pytest.approx(eval(printed), abs=6e-4)


def test_the_page_has_figures():
    assert len(FIGURES) == 9
