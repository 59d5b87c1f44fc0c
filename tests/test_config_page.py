"""docs/config.md is what the fields of the config say."""

from __future__ import annotations

import re
from pathlib import Path

import config_page

from rlinf_isaac.config import known_keys

PAGE = Path(__file__).parents[1] / "docs" / "config.md"


def test_the_page_is_that_of_the_fields():
    assert PAGE.read_text() == config_page.page(), "run: python .ci/config_page.py > docs/config.md"


def test_every_key_is_there_once_and_says_what_it_is_in_a_sentence():
    """A field without a docstring makes no page."""
    rows = re.findall(r"^\| `([\w.]+)` \| .*? \| .*? \| (.+) \| .*? \|$", PAGE.read_text(), re.MULTILINE)
    assert sorted(key for key, _ in rows) == sorted(known_keys())
    assert [key for key, text in rows if len(text.split()) < 4 or not text.endswith(".")] == []
