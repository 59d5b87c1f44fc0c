"""Checks the depth of untrusted YAML, and its size with aliases expanded, before it is parsed into objects.

An alias takes two characters in a file but may stand for a large object that a reader copies: nine nested lists of nine
aliases each expand to a billion entries.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from rlinf_isaac.ground.reading import MAX_DEPTH, read_bytes

MAX_BYTES = 1_000_000
"""Largest YAML file that is read. Presets and resolved configs of trainings are far smaller."""
_MAX_NODES = 200_000
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml_text(path: str | Path) -> str:
    """The text of a YAML file.

    Raises:
        OSError: it cannot be read, or is not a regular file.
        ValueError, yaml.YAMLError: it is larger than `MAX_BYTES`, not UTF-8, or refused by `check_yaml_text`.
    """
    text = read_bytes(path, MAX_BYTES).decode()
    check_yaml_text(text)
    return text


def check_yaml_text(text: str) -> None:
    """Check a YAML text by its parser events, without building objects.

    Raises:
        ValueError: it nests deeper than `reading.MAX_DEPTH`, an alias is inside the node to which it refers, or there
            are more than `_MAX_NODES` nodes with aliases expanded.
        yaml.YAMLError: it is not YAML.
    """
    open_nodes: list[tuple[str | None, int]] = []  # anchor of an open collection, number of nodes before it
    sizes: dict[str, int] = {}
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"the alias *{event.anchor} refers to nothing, or is inside the node it refers to")
            count += sizes[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            count += 1
            if event.anchor:
                sizes[event.anchor] = 1
        elif isinstance(event, yaml.CollectionStartEvent):
            open_nodes.append((event.anchor, count))
            count += 1
            if len(open_nodes) > MAX_DEPTH:
                raise ValueError("it nests too deeply")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_nodes.pop()
            if anchor:
                sizes[anchor] = count - before
        if count > _MAX_NODES:
            raise ValueError(f"it has more than {_MAX_NODES} nodes with its aliases expanded")
