"""YAML that others wrote, looked at before it is built: how deep it nests, and how large its aliases make it.

An alias costs a YAML file two letters, and whoever copies what it stands for all of it: nine lists of nine aliases of
each other are a billion entries.
"""

from __future__ import annotations

from pathlib import Path

import yaml

from rlinf_isaac.ground.reading import MAX_DEPTH, read_bytes

MAX_BYTES = 1_000_000
"""More than any preset, or any resolved config of a training, has."""
_MAX_NODES = 200_000
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def read_yaml_text(path: str | Path) -> str:
    """The text of a YAML file.

    Raises:
        OSError: it cannot be read, or is no regular file.
        ValueError, yaml.YAMLError: it is larger than any config, not UTF-8, or as `check_yaml_text`.
    """
    text = read_bytes(path, MAX_BYTES).decode()
    check_yaml_text(text)
    return text


def check_yaml_text(text: str) -> None:
    """Go through a YAML text without building anything.

    Raises:
        ValueError: it nests deeper than JSON may (`reading.MAX_DEPTH`), an alias stands in what it stands for, or
            the whole has more nodes than any config, each alias counted as what it stands for.
        yaml.YAMLError: it is no YAML.
    """
    open_nodes: list[tuple[str | None, int]] = []  # anchor, nodes up to there
    sizes: dict[str, int] = {}
    count = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise ValueError(f"the alias *{event.anchor} stands for nothing, or within what it stands for")
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
            raise ValueError(f"it has more than {_MAX_NODES} nodes, aliases counted as what they stand for")
