"""The rows of a worker in IsaacLab's stack-cube task: those of any task of IsaacLab, and films."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlinf_isaac.envs.host.protocol import Leaf
from rlinf_isaac.envs.host.worker.rows import Rows
from rlinf_isaac.envs.isaaclab.hosted import FILM
from rlinf_isaac.envs.isaaclab.worker.rows import ASSET_ROOT, LabRows


class StackCubeRows(LabRows):
    """Rows of `stack_cube.StackCube`, whose films are drawn when asked for."""

    ORDERS = (*Rows.ORDERS, "films")

    def report(self) -> dict[str, Any]:
        """That of `LabRows`; the digest is that of the files that the task is known to load."""
        found = super().report()
        films = self._vector.films()  # compiles the renderer's kernels, which takes longer than an order may take
        found["leaves"] |= {path: Leaf(film.shape[1:], film.dtype.str, True) for path, film in films.items()}
        return found | {"assets": f"{self.source}-{self._digest}"}

    def build(self, num_envs: int, action_dims: int, leaves: Mapping[str, Sequence[Any]]) -> None:
        super().build(num_envs, action_dims, leaves)
        self.pictures = [path for path in self.pictures if not path.startswith(f"{FILM}/")]

    def films(self, rows: Sequence[int]) -> None:
        """Draw a frame of a video for these rows, as they are now."""
        assert self.shared is not None
        for path, film in self._vector.films().items():
            self.shared.observation[path][list(rows)] = film[self._places(rows)]

    def _make_lab(self, count: int) -> Any:
        from rlinf_isaac.envs.isaaclab.worker import assets
        from rlinf_isaac.envs.isaaclab.worker.stack_cube import StackCube, stack_cube_config

        root = Path(os.environ[ASSET_ROOT])
        self._digest = assets.digest(root)
        own, device = self.settings["stack_cube"], self.settings["device"]
        hand = assets.hand_path(root)
        return StackCube(stack_cube_config(count, own["image_size"], own["max_steps"], device, hand))
