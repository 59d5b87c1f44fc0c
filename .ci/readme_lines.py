"""The install lines of README and of the pages in docs/, so that what CI resolves and installs is what they say.

Run as a script, it prints the block of README's first install as it stands; with ``--cpu-wheels DIR`` that directory
takes the place of the index of torch's CPU builds, for a machine that does not reach it.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
DEFAULT_PYTHON = "3.11"


@dataclass(frozen=True)
class Install:
    """One call of ``pip install``.

    Attributes:
        line: the line of the page that it is part of.
        python: the Python that its block makes the interpreter with.
        arguments: what follows ``pip install``.
    """

    line: str
    python: str
    arguments: tuple[str, ...]

    def __str__(self) -> str:
        return shlex.join(("pip", "install", *self.arguments))

    @property
    def constraints(self) -> str | None:
        """The file after ``-c``."""
        return self.arguments[self.arguments.index("-c") + 1] if "-c" in self.arguments else None

    @property
    def of_cpu(self) -> bool:
        """Whether it asks the index of torch's CPU builds."""
        return CPU_INDEX in self.arguments


def with_wheels(line: str, directory: str) -> str:
    """A line in which `directory` stands for the index of torch's CPU builds."""
    return line.replace(f"--extra-index-url {CPU_INDEX}", f"--find-links {shlex.quote(directory)}")


def pages() -> list[Path]:
    """README first, then its translations and every page of docs/."""
    return [README, *sorted(ROOT.glob("README.*.md")), *sorted(ROOT.glob("docs/**/*.md"))]


def installs(text: str | None = None) -> list[Install]:
    """Every call of pip in the code blocks of README and docs/, in their order; or in those of `text`."""
    if text is None:
        return [each for page in pages() for each in installs(page.read_text())]
    found, python = [], DEFAULT_PYTHON
    for line in indented(text).splitlines():
        if not line.startswith("    "):
            python = DEFAULT_PYTHON  # the block has ended
            continue
        for words in _commands(line):
            if made := re.fullmatch(r"(?:.*/)?python(3\.\d+)", words[0]):
                python = made[1]
            if words[0].rpartition("/")[2] == "pip" and words[1:2] == ["install"]:
                found.append(Install(line.strip(), python, tuple(words[2:])))
    return found


def indented(text: str) -> str:
    """A page with the lines of its fenced blocks of shell indented, as those of its other blocks are."""
    fence = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return fence.sub(lambda block: "\n" + re.sub(r"^", "    ", block[1], flags=re.MULTILINE).rstrip(" "), text)


def _commands(line: str) -> list[list[str]]:
    """The words of each command of a line of shell; comments are left out."""
    commands: list[list[str]] = [[]]
    lexer = shlex.shlex(line, posix=True, punctuation_chars="&;|")
    lexer.whitespace_split = True
    try:
        for word in lexer:
            if set(word) <= set("&;|"):
                commands.append([])
            else:
                commands[-1].append(word)
    except ValueError:  # no shell, but a figure or a listing
        return []
    return [words for words in commands if words]


def first_block(text: str) -> str:
    """README's first code block that installs something: its lines, one below the other."""
    for block in re.split(r"\n(?! {4})", text):
        lines = [line[4:] for line in block.splitlines() if line.startswith("    ")]
        if any("pip install" in line for line in lines):
            return "\n".join(lines)
    raise LookupError("README installs nothing")


def main() -> None:
    """Print the first block."""
    block = first_block(README.read_text())
    print(with_wheels(block, sys.argv[2]) if sys.argv[1:2] == ["--cpu-wheels"] else block)


if __name__ == "__main__":
    main()
