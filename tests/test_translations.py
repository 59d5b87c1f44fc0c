"""A translation that falls behind its English page is found."""

from __future__ import annotations

import pytest
from translations import ROOT, behind, translations, update


@pytest.mark.parametrize("page", translations(), ids=lambda page: str(page.relative_to(ROOT)))
def test_no_translation_is_behind(page):
    assert behind(page) is None


def test_what_must_be_there_in_chinese():
    assert {str(page.relative_to(ROOT)) for page in translations()} >= {
        "README.zh-CN.md",
        "docs/zh/evaluate.md",
        "docs/zh/quickstart.md",
        "docs/zh/rlinf.md",
    }


def test_a_change_of_the_english_page_is_told(tmp_path):
    english, page = tmp_path / "docs/page.md", tmp_path / "docs/zh/page.md"
    page.parent.mkdir(parents=True)
    english.write_text("# Page\n\nText.\n")
    page.write_text("# 页面\n")
    assert "its first line must be" in behind(page, tmp_path)
    page.write_text("<!-- translated from docs/page.md, sha256 0 -->\n# 页面\n")
    assert "docs/page.md has changed" in behind(page, tmp_path)
    update(page, tmp_path)
    assert behind(page, tmp_path) is None
    english.write_text("# Page  \n\nText.")  # only spaces
    assert behind(page, tmp_path) is None
    english.write_text("# Page\n\nMore text.\n")
    assert "docs/page.md has changed" in behind(page, tmp_path)
    english.unlink()
    assert "there is no docs/page.md" in behind(page, tmp_path)
    assert page.read_text().endswith("# 页面\n")
