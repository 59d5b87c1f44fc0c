"""MLflow's source type ``lerobot``: `mlflow.data.get_source` gives back what a run was trained on.

MLflow finds it through the entry point ``mlflow.dataset_source`` of this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlflow.data.dataset_source import DatasetSource

from rlinf_isaac.data.resolve import resolve_dataset


class LeRobotSource(DatasetSource):
    """A LeRobot dataset on disk.

    Attributes:
        root: directory that holds ``meta/info.json``.
        sha256: digest of its content when it was used.
    """

    def __init__(self, root: str, sha256: str | None = None) -> None:
        self.root = root
        self.sha256 = sha256

    @staticmethod
    def _get_source_type() -> str:
        return "lerobot"

    def load(self) -> Path:
        """The dataset's directory. Raises DatasetError when it is not there any more."""
        return resolve_dataset(self.root).root

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        # Only what says so itself: a plain path belongs to MLflow's own file source.
        return isinstance(raw_source, str) and raw_source.startswith("lerobot:")

    @classmethod
    def _resolve(cls, raw_source: str) -> LeRobotSource:
        return cls(raw_source.removeprefix("lerobot:"))

    def to_dict(self) -> dict[str, Any]:
        return {"root": self.root, "sha256": self.sha256}

    @classmethod
    def from_dict(cls, source_dict: dict[str, Any]) -> LeRobotSource:
        return cls(source_dict["root"], source_dict.get("sha256"))
