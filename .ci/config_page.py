"""docs/config.md: every key of the job config, from the fields, their docstrings and their rules.

python .ci/config_page.py > docs/config.md
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from omegaconf import MISSING

from rlinf_isaac.config.reads import readers
from rlinf_isaac.config.rules import rules_of
from rlinf_isaac.config.schema import JobConfig

HEAD = """\
# Config

Every key of a job, with its default. A preset has other values for some, and those for the keys without a default;
`--overrides section.key=value` has the last word, and is refused where it would do nothing. The last column names the
verbs that read a key. This page is made of `rlinf_isaac/config/*schema.py` by `.ci/config_page.py`.
"""


def meanings(section: type) -> dict[str, str]:
    """Field -> its docstring, the text that stands below it, in one line.

    Raises:
        KeyError: by who asks for a field without one.
    """
    (node,) = ast.parse(inspect.getsource(section)).body
    assert isinstance(node, ast.ClassDef)
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        match field, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                found[name] = _line(text)
    return found


def page() -> str:
    """The whole page."""
    rules = {key: rule.words for key, rule in rules_of(JobConfig)}
    return "\n".join([HEAD, *_section(JobConfig(), "", rules)])


def _section(section: Any, prefix: str, rules: dict[str, str]) -> Iterator[str]:
    said = meanings(type(section))
    # The description of the task, a dict, has keys of its own (docs/tasks.md).
    plain = {
        name: value for name, value in vars(section).items() if not (is_dataclass(value) or isinstance(value, dict))
    }
    if prefix:
        yield f"## `{prefix[:-1]}`\n\n{_line(type(section).__doc__ or '')}\n"
    yield "| key | default | must be | what it is | read by |\n|---|---|---|---|---|"
    for name, value in plain.items():
        key = f"{prefix}{name}"
        default = "" if value == MISSING else f"`{str(value).lower() if isinstance(value, bool) else value}`"
        yield f"| `{key}` | {default} | {rules.get(key, '')} | {said[name]} | {', '.join(readers(key))} |"
    yield ""
    for name, value in vars(section).items():
        if is_dataclass(value):
            yield from _section(value, f"{prefix}{name}.", rules)


def _line(docstring: str) -> str:
    """Of one line, in Markdown's quotes, without what ends a cell."""
    return re.sub(r"``+", "`", " ".join(docstring.split())).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
