"""The record of an import, ``meta/provenance.json``, and whether a dataset that is there was made the same way."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlinf_isaac.data.hdf5.plan import Plan
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.errors import DatasetError, Problem
from rlinf_isaac.ground.reading import read_json

MOST_BYTES = 4_000_000
"""Longest record that readers of a dataset take (``data.lerobot.files.MAX_JSON_BYTES``)."""


def recipe(plan: Plan, digests: Mapping[Path, str]) -> dict[str, Any]:
    """Everything that determines the content of the dataset; JSON-ready.

    Args:
        plan: of the import.
        digests: sha256 of every file.
    """
    chosen = plan.chosen
    return {
        "kind": "imported demonstrations",
        "sources": [
            {"file": file.path.name, "sha256": digests.get(file.path), "env_args": dict(file.env_args)}
            for file in plan.files
        ],
        "fps": {"hz": plan.fps, "from": plan.fps_from},
        "cameras": {
            camera.feature: {"key": camera.key, "channels_first": camera.channels_first} for camera in chosen.cameras
        },
        "state": [part.key for part in chosen.state],
        "action": chosen.action.key,
        "numbers": "rounded to float32",
        "mask": plan.request.mask,
        "failed": "keep" if plan.request.keep_failed else "drop",
        "prompts": sorted({demo.prompt or "" for demo in plan.demos}),
    }


def record(plan: Plan, made: Mapping[str, Any]) -> dict[str, Any]:
    """``meta/provenance.json``: the recipe, and what became of each demonstration."""
    return {**made, "recipe_digest": json_digest(made), "episodes": list(_episodes(plan))}


def check_record(plan: Plan) -> Iterator[Problem]:
    """Whether the record is short enough to be read again."""
    length = len(json.dumps(record(plan, recipe(plan, dict.fromkeys(plan.request.files, "0" * 64))), indent=2))
    if length > MOST_BYTES:
        cause = f"the record of {len(plan.demos) + len(plan.dropped)} demonstrations would have {length} bytes"
        cure = f"import fewer at a time (--mask, several files); readers take {MOST_BYTES} bytes"
        yield Problem("hdf5-large", cause, cure)


def check_same(root: Path, made: Mapping[str, Any], *, hashed: bool) -> None:
    """Compare the dataset at `root` with a recipe.

    Args:
        root: of a dataset, or of anything else.
        made: the recipe.
        hashed: whether the recipe has the sha256 of the files; without, they are not compared.

    Raises:
        DatasetError: it was not made by an import, or by another one.
    """
    path = root / "meta" / "provenance.json"
    try:
        recorded = read_json(path, MOST_BYTES)
        if not isinstance(recorded, dict) or recorded.get("kind") != made["kind"]:
            raise ValueError("of something else")
    except (OSError, ValueError) as error:
        cause = f"{root} exists and was not made by this verb ({path.name}: {type(error).__name__})"
        raise DatasetError.of("output-exists", cause, "choose another --name or --output, or remove it") from error
    before = recorded if hashed else _without_digests(recorded)
    now = made if hashed else _without_digests(made)
    if differing := [key for key in now if before.get(key) != now[key]]:
        cause = f"{root} was made of other data, or in another way: {', '.join(differing)} differ"
        raise DatasetError.of("output-of-another-job", cause, "choose another --name or --output, or remove it")


def _without_digests(made: Mapping[str, Any]) -> dict[str, Any]:
    sources = made.get("sources")
    plain = [
        {key: value for key, value in source.items() if key != "sha256"} if isinstance(source, dict) else source
        for source in (sources if isinstance(sources, list) else [])
    ]
    return {**made, "sources": plain}


def _episodes(plan: Plan) -> Iterator[dict[str, Any]]:
    """What became of each demonstration; those that are left out have no episode."""
    numbers = {file.path: number for number, file in enumerate(plan.files)}
    for index, demo in [*enumerate(plan.demos), *((None, demo) for demo in plan.dropped)]:
        yield {"episode": index, "source": numbers[demo.path], **demo.as_dict()}
