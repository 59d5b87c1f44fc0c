"""What MkDocs does to a page of docs/ before it renders it (`hooks` of mkdocs.yml).

- A link out of docs/, to a file of the repository, becomes a link to `repo_url` where mkdocs.yml has one, and plain
  text where it has none. A target that does not exist is a warning, and so an error of ``mkdocs build --strict``.
- A comment ``<!-- needs: a GPU -->`` before a block of commands becomes a line that the reader sees.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"\[([^\[\]]*)\]\((\.\./[^)#\s]*)(#[^)\s]*)?\)")
NEEDS = re.compile(r"^<!-- needs: (.*?) -->$", re.MULTILINE)
_log = logging.getLogger("mkdocs.hooks.docs_site")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """The page as MkDocs renders it."""
    here = Path(page.file.abs_src_path).parent
    docs = Path(config["docs_dir"])

    def outward(link: re.Match[str]) -> str:
        target = (here / link[2]).resolve()
        if target.is_relative_to(docs):
            return link[0]
        if not target.exists():
            _log.warning("%s links to %s, which does not exist", page.file.src_uri, link[2])
        if not config["repo_url"]:
            return link[1]
        return f"[{link[1]}]({config['repo_url'].rstrip('/')}/blob/HEAD/{target.relative_to(ROOT)}{link[3] or ''})"

    return NEEDS.sub(r'<p class="needs">Needs \1.</p>', LINK.sub(outward, markdown))
