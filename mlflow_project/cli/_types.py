"""Types of options: the word that stands for the value in a help text, and what a shell completes.

None of them refuses a value. The preflight does that, for all options at once and with a cure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem
from click.types import StringParamType


class Text(StringParamType):
    """A text with a name and proposals.

    Args:
        name: stands for the value in a help text.
        propose: the context of the command and what is typed -> what could be meant; none is checked for its beginning.
        files: ``file`` or ``dir`` where the shell completes paths besides.
    """

    def __init__(
        self,
        name: str,
        propose: Callable[[click.Context, str], Iterable[str]] = lambda context, typed: (),
        files: str | None = None,
    ) -> None:
        self.name, self._propose, self._files = name, propose, files

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        """The name, as it is."""
        return self.name

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """The proposals that begin with what is typed, then, for a path, the item that lets the shell complete it."""
        try:
            names = [name for name in self._propose(ctx, incomplete) if name.startswith(incomplete)]
        except Exception:  # a completion that fails proposes nothing, and prints nothing into the prompt
            names = []
        items = [CompletionItem(name) for name in names]
        if self._files and not items:
            items.append(CompletionItem(incomplete, type=self._files))
        return items


def words(name: str, *choices: str) -> Text:
    """A text for which the shell proposes these words."""
    return Text(name, lambda context, typed: choices)


def _presets(context: click.Context, typed: str) -> Iterable[str]:
    from rlinf_isaac.config import preset_names

    return preset_names()


def _tasks(context: click.Context, typed: str) -> Iterable[str]:
    from rlinf_isaac.tasks.registry import task_names

    return task_names()


def _steps(context: click.Context, typed: str) -> Iterable[str]:
    """The steps of the checkpoints below ``--ckpt-root``, after those that are typed already."""
    from rlinf_isaac.checkpoint.steps import CHECKPOINTS, find_bundles

    root = Path(str(context.params.get("ckpt_root") or ""))
    before, comma, _ = typed.rpartition(",")
    known = find_bundles(root) or find_bundles(root / CHECKPOINTS)
    return [f"{before}{comma}{step}" for step in known if str(step) not in before.split(",")]


def _datasets(context: click.Context, typed: str) -> Iterable[str]:
    """The datasets that `demos` and `dataset` have written below the default output."""
    return [str(path.parent.parent) for path in sorted(Path("result/isaaclab_openpi").glob("*/*/meta/info.json"))]


PRESET = Text("PRESET", _presets, "file")
TASK = Text("TASK", _tasks, "file")
STEPS = Text("STEPS", _steps)
DATASET = Text("DATASET", _datasets, "dir")
DIRECTORY = Text("DIRECTORY", files="dir")
FILE = Text("FILE", files="file")
CHECKPOINTS = Text("CHECKPOINTS", files="dir")
CHECKPOINT = Text("CHECKPOINT", files="dir")
