"""The rows of a worker in an environment of IsaacLab, which steps them together."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rlinf_isaac.envs.host.worker.rows import Step
from rlinf_isaac.envs.host.worker.vector import VectorRows
from rlinf_isaac.envs.isaaclab.options import LabOptions, read_options
from rlinf_isaac.ground.digest import file_digest, json_digest
from rlinf_isaac.tasks.terms import TERM

ASSET_ROOT = "ISAACSIM_ASSET_ROOT"
"""IsaacLab's environment variable for its assets. If it is set, those assets are used instead of the stand-ins."""


class LabRows(VectorRows):
    """Rows of a task of IsaacLab. One whose episode has ended is stepped on unseen, and disturbs nobody.

    Attributes:
        source: where the scene's files are from: ``given``, ``standin`` or ``own``.
    """

    def report(self) -> dict[str, Any]:
        """That of `Rows`, and besides ``backend``, ``renderer`` and ``assets``, as `EnvIdentity` has them, and
        ``terms``: what a term of the task may read of `info`."""
        lab, settings = self._vector, self.settings
        device = settings["device"].partition(":")[0]
        found = super().report()
        found["versions"] |= {name: version(name) for name in ("newton", "warp-lang", "mujoco-warp", "torch")}
        return found | {
            "backend": f"isaaclab-{version('isaaclab')}/{lab.physics}/{device}",
            "renderer": "newton" if self.options.launcher == "newton" else "rtx",
            "assets": f"{self.source}-{loaded_digest()}",
            "terms": [*(f"{TERM}{name}" for name in lab.terms()), *(f"info.{name}" for name in lab.metrics())],
        }

    def _split(
        self, observations: Any, rewards: Any, terminated: Any, truncated: Any, infos: Any, places: Sequence[int]
    ) -> list[Step]:
        # Hundreds of rows in each step: numbers are taken out of arrays all at once, and observations only on demand.
        columns = {name: values.tolist() for name, values in infos.items()}
        rest = [values.tolist() for values in (rewards, terminated, truncated)]
        return [
            (
                RowOf(observations, i),
                *(values[i] for values in rest),
                {name: each[i] for name, each in columns.items()},
            )
            for i in places
        ]

    def _begin_unseen(self) -> None:
        """IsaacLab goes on stepping rows whose episodes are over."""

    def _make_vector(self, count: int) -> Any:
        settings = self.settings
        self.options, wrong = read_options(settings["options"])
        if wrong:
            raise ValueError("; ".join(wrong))
        self.source = prepare_assets(self.options, Path(settings["cache"]) / "assets")
        return self._make_lab(count)

    def _make_lab(self, count: int) -> Any:
        """IsaacLab's environment of so many rows, once it is known where its files are."""
        settings = self.settings
        from rlinf_isaac.envs.isaaclab.worker.config import lab_config
        from rlinf_isaac.envs.isaaclab.worker.lab import Lab

        place = settings["directory"], settings["sources"]
        config = lab_config(settings["make"], self.options, count, settings["device"], *place)
        success = settings["success"].removeprefix(TERM) if settings["success"].startswith(TERM) else None
        if success is not None and success not in vars(getattr(config.cfg, "terminations", None) or object):
            success = None  # the parent says which there are
        return Lab(config, success)


class RowOf(Mapping[str, Any]):
    """One row of dicts of arrays (N, ...), which must not be changed meanwhile."""

    def __init__(self, values: Mapping[str, Any], row: int) -> None:
        self._values, self._row = values, row

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        return RowOf(value, self._row) if isinstance(value, Mapping) else value[self._row]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def prepare_assets(options: LabOptions, cache: Path) -> str:
    """See to it that IsaacLab finds its scene's files, before it is imported; returns where they are from."""
    # IsaacLab imports mujoco but renders nothing with it; the parent's choice of GL may not be available here.
    os.environ["MUJOCO_GL"] = "disable"
    if os.environ.get(ASSET_ROOT):
        return "given"
    if options.assets != "standin":
        return "own"
    os.environ[ASSET_ROOT] = str(prepare_stand_ins(cache))
    return "standin"


def prepare_stand_ins(root: Path) -> Path:
    """Write the stand-ins, once per version of the code that makes them. Returns their directory."""
    from rlinf_isaac.envs.isaaclab import kinematics
    from rlinf_isaac.envs.isaaclab.worker import assets

    made_by = "".join(file_digest(str(module.__file__))[:8] for module in (assets, kinematics))
    complete = root / made_by
    if not complete.exists():
        partial = root / f"{made_by}.{os.getpid()}"
        assets.write_assets(partial)
        try:
            partial.rename(complete)
        except OSError:  # another process has written them in the meantime
            shutil.rmtree(partial)
    return complete


def loaded_digest() -> str:
    """sha256 of all files of which the scene consists now, by their names, without textures."""
    from isaaclab.sim.utils.stage import get_current_stage

    paths = {Path(layer.realPath) for layer in get_current_stage().GetUsedLayers() if layer.realPath}
    return json_digest(_by_name(paths))


def _by_name(paths: set[Path]) -> Mapping[str, str]:
    """Name of each file, below what all have in common -> sha256."""
    if not paths:
        return {}
    root = os.path.commonpath([path.parent for path in paths])
    return {os.path.relpath(path, root): file_digest(str(path)) for path in sorted(paths)}
