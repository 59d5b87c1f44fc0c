"""Whatever is printed, on whatever way: nothing in it acts on the terminal, and our own lines stay as they are."""

from __future__ import annotations

import io
import logging
import unicodedata

import pytest
from rich.logging import RichHandler
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from mlflow_project.tracking.progress import ProgressView
from mlflow_project.tracking.terminal import SafeConsole, escaped
from rlinf_isaac.ground.events import Progress

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
ACTS = [chr(code) for code in (*range(0x20), 0x7F, *range(0x80, 0xA0))] + [
    *BIDI,
    "\u2028",
    "\u2029",
    "\ud800",
    "\udfff",
]
ALL = "".join(each for each in ACTS if each != "\n")


def console() -> SafeConsole:
    return SafeConsole(file=io.StringIO(), force_terminal=True, no_color=True, width=2000, soft_wrap=True)


def acting(text: str) -> list[str]:
    return [each for each in text if each != "\n" and each in ACTS]


def by_print(to: SafeConsole, text: str) -> None:
    to.print(text)


def by_text(to: SafeConsole, text: str) -> None:
    to.print(Text(text), Text.assemble("a ", (text, "bold")))


def by_table(to: SafeConsole, text: str) -> None:
    table = Table(title=text)
    table.add_column(text)
    table.add_row(text)
    table.add_row(Text(text))
    to.print(table)


def by_tree(to: SafeConsole, text: str) -> None:
    tree = Tree(text)
    tree.add(text).add(Text(text))
    to.print(tree)


def by_log(to: SafeConsole, text: str) -> None:
    logger = logging.Logger("x")
    logger.addHandler(RichHandler(console=to, show_time=False, show_path=False, markup=False))
    logger.warning("it is %s", text)


def by_progress(to: SafeConsole, text: str) -> None:
    with ProgressView(to) as view:
        view.show(Progress(text, 1, 2, text))


def by_lines_of_progress(to: SafeConsole, text: str) -> None:
    to._force_terminal = False
    by_progress(to, text)


@pytest.mark.parametrize("way", [by_print, by_text, by_table, by_tree, by_log, by_lines_of_progress])
def test_nothing_acts(way):
    to = console()
    to._color_system = None
    way(to, f"<{ALL}>")
    printed = to.file.getvalue()
    assert acting(printed.replace("\x1b[1m", "").replace("\x1b[0m", "")) == []
    assert "\\x1b" in printed
    assert "\\u202e" in printed


@pytest.mark.parametrize("character", ACTS, ids=lambda each: f"U+{ord(each):04X}")
def test_each_is_spelled_as_python_spells_it(character):
    to = console()
    to.print(f"a{character}b")
    assert to.file.getvalue() == f"a{escaped(character)}b\n"
    code = ord(character)
    assert escaped(character) in (f"\\x{code:02x}", f"\\u{code:04x}", "\\n")


def test_progress_bars_draw_only_what_is_ours():
    to = SafeConsole(file=io.StringIO(), force_terminal=True, width=200)
    by_progress(to, "label \x1b]0;gone\x07 \u202e")
    assert "\x1b]0" not in to.file.getvalue()
    assert "\u202e" not in to.file.getvalue()
    assert "\x07" not in to.file.getvalue()


def test_a_name_cannot_begin_a_line_of_its_own():
    to = console()
    to.print("\nfile         a\nerror forged")
    assert to.file.getvalue() == "\nfile         a\\nerror forged\n"
    to.print("of ours\n  and more", lines=True)
    assert to.file.getvalue().endswith("of ours\n  and more\n")


def test_what_people_write_stays_as_it_is():
    to = console()
    text = "Größe 3 µm → ±5 % 図 नमस्ते می‌خواهم 👩‍🔬 [bold]x[/] [/] :bug: C:\\x1b"
    to.print(text)
    assert to.file.getvalue() == f"{text}\n"


def test_every_control_character_of_unicode_is_known():
    everything = map(chr, range(0x110000))
    controls = [each for each in everything if unicodedata.category(each) in ("Cc", "Zl", "Zp", "Cs")]
    assert [each for each in controls if escaped(each) == each] == []
    assert [each for each in BIDI if escaped(each) == each] == []
