"""The MLflow source type ``lerobot``, with which `mlflow.data.get_source` returns the dataset of a training run.

MLflow finds it through the entry point ``mlflow.dataset_source`` of this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.data.dataset_source import DatasetSource

from rlinf_isaac.data.lerobot.resolve import resolve_dataset


class LeRobotSource(DatasetSource):
    """A LeRobot dataset on disk.

    Attributes:
        root: directory that contains ``meta/info.json``.
        sha256: digest of the content when the dataset was used.
        hub: ``hf://org/name@commit``, if it came from the Hugging Face Hub.
    """

    def __init__(self, root: str, sha256: str | None = None, hub: str | None = None) -> None:
        self.root = root
        self.sha256 = sha256
        self.hub = hub

    @staticmethod
    def _get_source_type() -> str:
        return "lerobot"

    def load(self) -> Path:
        """The dataset's directory. Raises DatasetError if it does not exist any more."""
        return resolve_dataset(self.root).root

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        # Only sources with this prefix: a plain path belongs to MLflow's own file source.
        return isinstance(raw_source, str) and raw_source.startswith("lerobot:")

    @classmethod
    def _resolve(cls, raw_source: str) -> LeRobotSource:
        return cls(raw_source.removeprefix("lerobot:"))

    def to_dict(self) -> dict[str, Any]:
        """Inverse of `from_dict`."""
        return {"root": self.root, "sha256": self.sha256} | ({"hub": self.hub} if self.hub else {})

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> LeRobotSource:
        """Inverse of `to_dict`."""
        return cls(source_dict["root"], source_dict.get("sha256"), source_dict.get("hub"))
