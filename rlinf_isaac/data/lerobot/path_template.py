"""``data_path`` and ``video_path`` of ``meta/info.json``: where lerobot keeps the files of a dataset.

    v2.1   data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet
           videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4
    v3.0   data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet
           videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4

A template is data from outside: ``str.format`` would read attributes of what it is given, and pad to a billion blanks.
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
"""What lerobot fills in, by the dataset's version."""
_LONGEST = 1000
_FIELD = re.compile(r"\{([^{}]*)\}")
_FORM = re.compile(r"([a-z_]+)(?::(?:(0)?([1-9]))?d)?")
_CURE = "restore the template that lerobot wrote: this one is of no dataset of lerobot"


class PathTemplate:
    """A template whose fields are all known, so that filling it in can neither fail nor grow.

    Args:
        text: as it stands in ``meta/info.json``.
        name: of its entry there, for messages.
        version: of the dataset.

    Raises:
        DatasetError: ``path-template``, it is no text, or has a field or a form of one that lerobot has not;
            ``path-outside``, it leads out of the dataset.
    """

    def __init__(self, text: object, name: str, version: str) -> None:
        self._name = name
        if not isinstance(text, str) or not text or len(text) > _LONGEST or "\0" in text:
            shown = repr(text)
            cause = f"meta/info.json: {name} is {shown[:80]}{'...' * (len(shown) > 80)}, which is no path"
            raise DatasetError.of("path-template", cause, _CURE)
        self._text = text = str(PurePosixPath(text))
        literals = _FIELD.split(text)
        if any("{" in literal or "}" in literal for literal in literals[::2]):
            raise self._refusal("has a brace that encloses no field")
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
            values: numbers, and with a video the name of its feature, which is data from outside as well.

        Raises:
            DatasetError: ``path-template``, a field has no value; ``path-outside``, the path leads out of the dataset.
        """
        parts = [self._literals[0]]
        for (name, width, padding), literal in zip(self._fields, self._literals[1:], strict=True):
            if name not in values:
                raise self._refusal(f"has the field {name}, which its files do not have")
            parts += (str(values[name]).rjust(width, padding), literal)
        path = "".join(parts)
        if "video_key" in values:  # numbers lead nowhere
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
