"""How the text of options becomes config overrides, words and datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlinf_isaac.config import split_overrides

AUTO = "auto"
NONE = "none"


def words(text: str) -> tuple[str, ...]:
    """The words of an option that takes several, separated by commas or spaces; ``none`` has none."""
    return () if text == NONE else tuple(text.replace(",", " ").split())


def interpreter(python: str) -> str | None:
    """The absolute path of the interpreter that ``--env-python`` names; None for ``auto``, which leaves it to the task
    or to ISAACLAB_PYTHON. Its symbolic links stay: they make it the one of its virtual environment."""
    return None if python == AUTO else str(Path(python).absolute())


def find_dataset(name: str, repo_id: str = NONE) -> Path:
    """The root of the dataset that ``--dataset`` and ``--repo-id`` mean.

    Raises:
        DatasetError: there is none; the message names every place that was looked at.
    """
    from rlinf_isaac.data.lerobot.resolve import resolve_dataset

    return resolve_dataset(name, None if repo_id == NONE else repo_id).root


def find_datasets(names: str, repo_id: str = NONE) -> tuple[Path, ...]:
    """The roots of several datasets, separated by commas, each found as by `find_dataset`. A directory may have commas
    in its name."""
    parts = [names] if Path(names).is_dir() else [part.strip() for part in names.split(",") if part.strip()]
    if len(parts) < 2:
        return (find_dataset(names, repo_id),)
    return tuple(find_dataset(name, repo_id) for name in parts)


def to_overrides(options: Mapping[str, str], keys: Mapping[str, str], text: str) -> list[str]:
    """Config overrides from ``--overrides``, then from the options that are not ``auto`` (which win).

    Args:
        options: option name -> value; one that is missing is ``auto``.
        keys: option name -> config key.
        text: the value of ``--overrides``.
    """
    given = [f"{key}={options[name]}" for name, key in keys.items() if options.get(name, AUTO) != AUTO]
    return split_overrides(text) + given
