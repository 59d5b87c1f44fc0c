"""Checks the values of the numeric columns in batches: finite values, indices, times, tasks, constant actions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings, first_few
from rlinf_isaac.data.lerobot.format import ACTION, Feature
from rlinf_isaac.data.lerobot.reader import to_numpy
from rlinf_isaac.ground.errors import DatasetError

TIMESTAMP_TOLERANCE_S = 1e-4  # lerobot's own
FLOAT32_STEPS = 2.0**-22  # a timestamp may be two float32 steps off
_ANEW = "write these episodes again with the right values"


@dataclass
class CheckedRows:
    """Tables of one schema, and the episodes to which their rows belong."""

    tables: list[tuple[str, pa.Table]] = field(default_factory=list)
    episodes: list[tuple[int, int, int]] = field(default_factory=list)  # index, rows, first global frame index
    rows: int = 0


@dataclass
class _Fault:
    """A failed check: the place of the first wrong value, and the episodes with wrong values."""

    first: str
    episodes: list[int]


class ValueChecks:
    """Checks values and collects faults over all batches."""

    def __init__(
        self,
        root: Path,
        features: Mapping[str, Feature],
        task_indices: Sequence[int] | None,
        fps: int | None,
        contiguous: bool,
        findings: FoldedFindings,
    ) -> None:
        self._root, self._features, self._findings = root, features, findings
        self._task_indices, self._fps, self._contiguous = task_indices, fps, contiguous
        self._faults: dict[str, _Fault] = {}
        self._rows = 0
        self._first_action: np.ndarray | None = None
        self._constant = np.zeros(0, bool)

    def check(self, batch: CheckedRows) -> None:
        """Check the values of one batch."""
        columns = self._to_numpy(batch.tables)
        index, rows, start = np.array(batch.episodes, np.int64).T
        episode = np.repeat(index, rows)
        frame = np.arange(len(episode)) - np.repeat(np.cumsum(rows) - rows, rows)
        for name, values in columns.items():
            if values.dtype.kind == "f":
                self._note(name, ~np.isfinite(values), values, episode, frame)
        expected = {"episode_index": episode, "frame_index": frame}
        if self._contiguous:
            expected["index"] = np.repeat(start, rows) + frame
        for name, right in expected.items():
            if name in columns and not np.array_equal(columns[name][:, 0], right):
                self._note(name, columns[name] != right[:, None], columns[name], episode, frame)
        if self._fps and "timestamp" in columns:
            stored = columns["timestamp"].astype(np.float64)
            right = frame[:, None] / self._fps
            with np.errstate(invalid="ignore"):
                off = np.abs(stored - right) > TIMESTAMP_TOLERANCE_S + right * FLOAT32_STEPS
            self._note("timestamps", off, stored, episode, frame)
        if self._task_indices is not None and "task_index" in columns:
            unknown = ~np.isin(columns["task_index"], self._task_indices)
            self._note("task_index", unknown, columns["task_index"], episode, frame)
        self._rows += len(episode)
        if ACTION in columns and columns[ACTION].shape[1] == math.prod(self._features[ACTION].shape):
            self._follow_action(columns[ACTION])

    def report(self) -> None:
        """Add the collected faults to the findings."""
        at_rate = f"timestamp is not frame_index / fps at {self._fps} Hz"
        kinds = {
            "episode_index": ("episode-index", "episode_index is not that of meta/", _ANEW),
            "frame_index": ("frame-index", "frame_index does not count from 0", _ANEW),
            "index": ("global-index", "index is not the running count of frames", _ANEW),
            "timestamps": ("timestamps", at_rate, f"correct fps, or {_ANEW}"),
            "task_index": ("task-index", "task_index is not among the tasks of meta/", "restore meta/tasks"),
        }
        for name, fault in self._faults.items():
            not_finite = ("value-not-finite", f"{name} holds NaN or infinite values", "record these episodes again")
            code, cause, cure = kinds.get(name, not_finite)
            where = f"{first_few(fault.episodes)}; first {fault.first}"
            self._findings.add(code, f"{self._root}: {cause} in episodes {where}", cure)
        if self._rows > 1 and self._constant.any() and self._first_action is not None:
            names = dict(enumerate(self._features[ACTION].names or ()))
            constant = [
                f"{names.get(entry, entry)} = {self._first_action[entry]:g}"
                for entry in np.flatnonzero(self._constant).tolist()
            ]
            cause = f"{self._root}: entries of {ACTION} never change: {first_few(constant)}"
            cure = "check the recorder; normalisation divides by a spread of zero"
            self._findings.add("constant-action", cause, cure, "warning")

    def _to_numpy(self, tables: Sequence[tuple[str, pa.Table]]) -> dict[str, np.ndarray]:
        """The columns, each (rows, dim). A column with null or ragged rows is left out and reported with its files."""
        joined, columns = pa.concat_tables([table for _, table in tables]), {}
        for name in joined.column_names:
            try:
                columns[name] = to_numpy(joined[name], self._features[name])
            except DatasetError:
                for file, table in tables:
                    try:
                        to_numpy(table[name], self._features[name])
                    except DatasetError as error:
                        (problem,) = error.problems
                        self._findings.add(problem.code, f"{self._root / file}: {name}: {problem.cause}", problem.cure)
        return columns

    def _note(self, name: str, bad: np.ndarray, values: np.ndarray, episode: np.ndarray, frame: np.ndarray) -> None:
        """Remember the episodes in which `bad` (rows, dim) is set."""
        if not bad.any():
            return
        row, entry = np.argwhere(bad)[0]
        shown = values[row, entry]
        episodes = list(dict.fromkeys(episode[bad.any(axis=1)].tolist()))
        where = f"episode {episode[row]}, frame {frame[row]}"
        fault = self._faults.setdefault(name, _Fault(f"in {where}, entry {entry}: {shown}", []))
        fault.episodes += episodes

    def _follow_action(self, action: np.ndarray) -> None:
        if self._first_action is None:
            self._first_action = action[0]
            self._constant = np.ones(action.shape[1], bool)
        if self._constant.any():
            self._constant &= (action == self._first_action).all(axis=0)
