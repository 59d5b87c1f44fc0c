"""Which translated pages are behind the English ones. A translation says on its first line what it was made from:

<!-- translated from docs/quickstart.md, sha256 0123456789abcdef -->

python .ci/translations.py          writes the present digests, once the translations have been brought up to date
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
FIRST_LINE = re.compile(r"<!-- translated from (\S+), sha256 (\w+) -->\n")


def translations(root: Path = ROOT) -> list[Path]:
    """README's translations, and the pages in the folders of docs/ that are named after a language."""
    return [*sorted(root.glob("README.*.md")), *sorted(root.glob("docs/zh/*.md"))]


def digest(page: Path) -> str:
    """The beginning of the sha256 of a page, whatever spaces its lines end with."""
    lines = [line.rstrip() for line in page.read_text().strip().splitlines()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def behind(page: Path, root: Path = ROOT) -> str | None:
    """What is wrong with a translation; None where it was made from the English page as it is."""
    name = page.relative_to(root)
    if not (said := FIRST_LINE.match(page.read_text())):
        return f"{name}: its first line must be <!-- translated from PAGE, sha256 DIGEST -->"
    source = root / said[1]
    if not source.is_file():
        return f"{name}: there is no {said[1]}, from which it was translated"
    if said[2] != digest(source):
        return f"{name}: {said[1]} has changed; translate what is new, then run python .ci/translations.py"
    return None


def update(page: Path, root: Path = ROOT) -> None:
    """Write the digest of the English page as it is."""
    text = page.read_text()
    said = FIRST_LINE.match(text)
    assert said, behind(page, root)
    line = f"<!-- translated from {said[1]}, sha256 {digest(root / said[1])} -->\n"
    page.write_text(line + text[said.end() :])


def main() -> None:
    """Update all."""
    for page in translations():
        if behind(page):
            update(page)
            print(page.relative_to(ROOT))


if __name__ == "__main__":
    main()
