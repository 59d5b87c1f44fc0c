"""What MkDocs does to a page of docs/ before it renders it (`hooks` of mkdocs.yml).

- A link out of docs/, to a file of the repository, becomes a link to `repo_url` where mkdocs.yml has one, and plain
  text where it has none. A target that does not exist is a warning, and so an error of ``mkdocs build --strict``.
- ``<!-- verbs -->`` becomes the options of every verb, by mkdocs-click, and the examples that its ``--help`` ends with.
- A comment ``<!-- needs: a GPU -->`` before a block of commands becomes a line that the reader sees.
"""

from __future__ import annotations

import importlib
import logging
import re
import textwrap
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

    markdown = NEEDS.sub(r'<p class="needs">Needs \1.</p>', LINK.sub(outward, markdown))
    return markdown.replace("<!-- verbs -->", "\n\n".join(_sections())) if "<!-- verbs -->" in markdown else markdown


def _sections() -> list[str]:
    """A section of each verb in the order of ``--help``."""
    from mlflow_project.cli import VERBS

    sections = []
    for verb in VERBS:
        sections.append(_section(f"rlinf-isaac {verb}", f"mlflow_project.cli.{verb}"))
        if verb == "doctor":
            sections.append(_section("rlinf-isaac doctor env", "mlflow_project.cli._doctor_env"))
    return sections


def _section(name: str, module: str) -> str:
    options = {"module": module, "command": "command", "prog_name": name, "depth": 1, "style": "table"}
    directive = "\n".join(["::: mkdocs-click", *(f"    :{key}: {value}" for key, value in options.items())])
    epilog = importlib.import_module(module).command.epilog or ""
    if not (example := epilog.replace("\b", "").replace("Example:", "").strip("\n")):
        return directive
    return f"{directive}\n\n**Example:**\n\n```bash\n{textwrap.dedent(example)}\n```"
