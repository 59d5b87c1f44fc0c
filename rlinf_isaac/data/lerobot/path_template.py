"""The path templates ``data_path`` and ``video_path`` of ``meta/info.json``.

    v2.1   data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet
           videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4
    v3.0   data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet
           videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4

Templates come from outside and are not trusted: ``str.format`` would let them read attributes of the values, and pad a
value with a billion blanks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from rlinf_isaac.ground.errors import DatasetError

FIELDS = {
    "v2.1": ("episode_chunk", "episode_index", "video_key"),
    "v3.0": ("chunk_index", "file_index", "video_key"),
}
"""The fields that lerobot fills in, by the dataset's version."""
_LONGEST = 1000
_FIELD = re.compile(r"\{([^{}]*)\}")
_FORM = re.compile(r"([a-z_]+)(?::(?:(0)?([1-9]))?d)?")
_CURE = "restore the template that lerobot wrote: lerobot does not write this one"


class PathTemplate:
    """A template that was checked to have only fields and formats of lerobot, so that its result stays small.

    Args:
        text: the template in ``meta/info.json``.
        name: the name of its entry, for messages.
        version: the version of the dataset.

    Raises:
        DatasetError: ``path-template``, it is not a text, or has a field or a format that lerobot does not use;
            ``path-outside``, it leads out of the dataset.
    """

    def __init__(self, text: object, name: str, version: str) -> None:
        self._name = name
        if not isinstance(text, str) or not text or len(text) > _LONGEST or "\0" in text:
            shown = repr(text)
            cause = f"meta/info.json: {name} is {shown[:80]}{'...' * (len(shown) > 80)}, which is not a path"
            raise DatasetError.of("path-template", cause, _CURE)
        self._text = text = str(PurePosixPath(text))
        literals = _FIELD.split(text)
        if any("{" in literal or "}" in literal for literal in literals[::2]):
            raise self._refusal("has a brace that is not part of a field")
        self._check(text)
        fields = []
        for field in literals[1::2]:
            match = _FORM.fullmatch(field)
            if match is None or match[1] not in FIELDS[version] or (match[1] == "video_key" and field != "video_key"):
                raise self._refusal(f"has the field {{{field[:40]}}}, which lerobot does not fill in")
            fields.append((match[1], int(match[3] or 0), match[2] or " "))
        self._literals, self._fields = literals[::2], fields

    def fill(self, values: Mapping[str, int | str]) -> str:
        """The path, relative to the dataset.

        Args:
            values: numbers, and for a video the name of its feature, which is not trusted either.

        Raises:
            DatasetError: ``path-template``, a field has no value; ``path-outside``, the path leads out of the dataset.
        """
        parts = [self._literals[0]]
        for (name, width, padding), literal in zip(self._fields, self._literals[1:], strict=True):
            if name not in values:
                raise self._refusal(f"has the field {name}, which its files do not have")
            parts += (str(values[name]).rjust(width, padding), literal)
        path = "".join(parts)
        if "video_key" in values:  # a feature's name may have "..", numbers cannot
            self._check(path)
        return path

    def _check(self, path: str) -> None:
        pure = PurePosixPath(path)
        if pure.is_absolute() or ".." in pure.parts or "\0" in path:
            cause = f"meta/info.json: the path {path[:_LONGEST]!r} ({self._name}) leads out of the dataset"
            raise DatasetError.of("path-outside", cause, "restore the template that lerobot wrote")

    def _refusal(self, what: str) -> DatasetError:
        cause = f"meta/info.json: {self._name} {self._text[:200]!r} {what}"
        return DatasetError.of("path-template", cause, _CURE)
