"""Turns the text of options into config overrides, words and datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from rlinf_isaac.config import split_overrides
from rlinf_isaac.engines.local.training.torchrun import launch
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.ground.hub import is_hub

AUTO = "auto"
NONE = "none"


def words(text: str) -> tuple[str, ...]:
    """The words of an option, which are separated by commas or spaces. ``none`` means no words."""
    return () if text == NONE else tuple(text.replace(",", " ").split())


def of_torchrun() -> list[str]:
    """The overrides that torchrun decides."""
    place = launch()
    return [] if place is None else [f"compute.num_processes={place.size}"]


def interpreter(python: str) -> str | None:
    """The absolute path of the interpreter that ``--env-python`` names.

    It is None for ``auto``, which leaves the choice to the task or to ISAACLAB_PYTHON. Symbolic links are not resolved,
    because through its link an interpreter belongs to a virtual environment.
    """
    return None if python == AUTO else str(Path(python).absolute())


def find_dataset(name: str, repo_id: str = NONE) -> Path:
    """The root of the dataset that ``--dataset`` and ``--repo-id`` name. One that is written ``hf://org/name`` is
    downloaded; nothing else is.

    Raises:
        DatasetError: no dataset was found. The message names every place that was searched.
    """
    if is_hub(name):
        from rlinf_isaac.data.lerobot.hub import fetch_dataset

        if repo_id != NONE:
            cause = f"--repo-id {repo_id} names a dataset below a home, and --dataset {name} is one of the hub"
            raise DatasetError.of("repo-id", cause, "leave --repo-id out")
        return fetch_dataset(name)
    from rlinf_isaac.data.lerobot.resolve import resolve_dataset

    return resolve_dataset(name, None if repo_id == NONE else repo_id).root


def find_datasets(names: str, repo_id: str = NONE) -> tuple[Path, ...]:
    """The roots of several datasets, whose names are separated by commas; each is found as by `find_dataset`.

    If `names` is an existing directory, it is one dataset, even if its name has commas.
    """
    parts = [names] if Path(names).is_dir() else [part.strip() for part in names.split(",") if part.strip()]
    if len(parts) < 2:
        return (find_dataset(names, repo_id),)
    return tuple(find_dataset(name, repo_id) for name in parts)


def to_overrides(options: Mapping[str, str], keys: Mapping[str, str], text: str) -> list[str]:
    """Config overrides: first those of ``--overrides``, then those of the options that are not ``auto``, which win.

    Args:
        options: option name -> value; one that is missing is ``auto``.
        keys: option name -> config key.
        text: the value of ``--overrides``.
    """
    given = [f"{key}={options[name]}" for name, key in keys.items() if options.get(name, AUTO) != AUTO]
    return split_overrides(text) + given
