"""Every python block of docs/rlinf_figures.md prints what stands beneath it."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "rlinf_figures.md"
BLOCKS = re.compile(r"```python\n(.*?)```\n```text\n(.*?)```", re.DOTALL)


def test_every_figure_is_what_its_block_prints() -> None:
    text = PAGE.read_text()
    blocks = BLOCKS.findall(text)
    assert len(blocks) == text.count("```python") == 4
    for code, shown in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), {})
        assert printed.getvalue() == shown, code
