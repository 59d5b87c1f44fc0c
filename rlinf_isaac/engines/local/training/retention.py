"""Removes the checkpoints that a training is not to keep (``sft.keep``, ``rl.keep``), and records what it removed.

``removed.jsonl`` in the directory of the job has a line for each. It is written before the checkpoint goes, so that
none is gone without a record; what a kill has interrupted is completed by `begin`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlinf_isaac.checkpoint.bundle import Bundle, find_bundles, read_bundle
from rlinf_isaac.checkpoint.removal import is_in_use, remove_bundle, size_of
from rlinf_isaac.checkpoint.steps import CHECKPOINTS
from rlinf_isaac.engines.base import Guardian
from rlinf_isaac.ground import atomic, lines
from rlinf_isaac.ground.events import CheckpointRemoved, Metrics


def scores_of(entries: Iterable[Metrics]) -> dict[int, float]:
    """Step -> how good the policy was on the held-out seeds or, where none was played, on the held-out episodes (minus
    the loss). Success and loss are not compared with each other."""
    played: dict[int, float] = {}
    losses: dict[int, float] = {}
    for entry in entries:
        if "heldout/success_once" in entry.values:
            played[entry.step] = entry.values["heldout/success_once"]
        if "val/loss" in entry.values:
            losses[entry.step] = -entry.values["val/loss"]
    return played or losses


class Retention:
    """Removes checkpoints of one training; only the process that writes them may use it.

    Args:
        output: directory of the job.
        also: names of the directories beside ``checkpoints`` in which something belongs to a step.
        guardian: `base.Guardian`; None: nobody else has a say.
    """

    def __init__(self, output: Path, also: Sequence[str], guardian: Guardian | None) -> None:
        self._output, self._also, self._guardian = output, also, guardian
        self._log = output / "removed.jsonl"

    def begin(self) -> Iterator[CheckpointRemoved]:
        """Complete what a kill has interrupted, and tell again what is removed."""
        there = find_bundles(self._output / CHECKPOINTS)
        for entry in map(json.loads, lines.read(self._log)):
            step = entry["step"]
            for root in (CHECKPOINTS, *self._also):
                atomic.remove_orphans(self._output / root / str(step))
            if step not in there:
                self._remove_rest(step)
                yield _event(self._output, entry)

    def keep(self, kept: Collection[int]) -> Iterator[CheckpointRemoved]:
        """Remove the checkpoints whose step is not in `kept`, unless somebody needs one or works with it."""
        there = find_bundles(self._output / CHECKPOINTS)
        going = [read_bundle(path, verify=False) for step, path in there.items() if step not in kept]
        going = [bundle for bundle in going if not is_in_use(bundle.path)]
        if not going:
            return
        needed = self._guardian(going) if self._guardian is not None else {}
        if needed is None:  # asked again when the next checkpoint is saved
            return
        for bundle in going:
            if bundle.digest not in needed:
                yield from self.remove(bundle)

    def remove(self, bundle: Bundle) -> Iterator[CheckpointRemoved]:
        """Remove a checkpoint and what belongs to its step, unless a process works with it."""
        step = bundle.step
        parts = [self._output / root / str(step) for root in (CHECKPOINTS, *self._also)]
        size = sum(size_of(part) for part in parts)
        entry = {"step": step, "digest": bundle.digest, "bytes": size, "time": time.time()}
        if not any((old["step"], old["digest"]) == (step, bundle.digest) for old in self._entries()):
            lines.append(self._log, json.dumps(entry))
        if remove_bundle(bundle.path):
            self._remove_rest(step)
            yield _event(self._output, entry)

    def _remove_rest(self, step: int) -> None:
        for root in self._also:
            if (part := self._output / root / str(step)).is_dir():
                atomic.remove_directory(part)

    def _entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in lines.read(self._log)]


def _event(output: Path, entry: Mapping[str, Any]) -> CheckpointRemoved:
    step = entry["step"]
    return CheckpointRemoved(step, output / CHECKPOINTS / str(step), entry["digest"], entry["bytes"])
