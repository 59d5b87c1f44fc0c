"""Where a result came from, as MLflow tags: digests that chain dataset -> norm stats -> checkpoint -> evaluation, and
the state of code, environment and machine. Environment variables are never read into a tag: they hold secrets.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import rlinf_isaac
from mlflow_project.vocabulary import COMMIT_TAG, DIRTY_TAG, VERSION_TAG, lineage_tag
from rlinf_isaac.ground.digest import bytes_digest, json_digest
from rlinf_isaac.ground.probe import installed_version, output_of

VERSIONS_OF = ("mlflow", "torch", "mujoco", "numpy", "gymnasium")
"""Packages whose versions are tags of their own; all others are in ``lineage.env.sha256``."""


NOT_WHAT = ("num_envs", "videos", "video_size")
"""Settings of an evaluation that do not change its episodes."""


@dataclass(frozen=True)
class DatasetInput:
    """A dataset as MLflow shows it.

    Attributes:
        name: shown in the runs table.
        sha256: digest of the content; MLflow keeps the first 32 digits (it allows 36 characters), the tag
            ``lineage.<link>.sha256`` all of them.
        context: what it is used for (``training``, ``evaluation``); the chip beside the name.
        source_type: kind of `source`: ``lerobot``, or ``simulator``.
        source: JSON-ready, what finds or makes the data again.
        profile: JSON-ready, sizes.
        schema: JSON-ready, ``{"mlflow_colspec": [{"name": ..., "type": ...}]}``, or None.
        part: its place among several that are mixed, from 1; 0 for one by itself.
    """

    name: str
    sha256: str
    context: str
    source_type: str
    source: Mapping[str, Any]
    profile: Mapping[str, Any]
    schema: Mapping[str, Any] | None = None
    part: int = 0

    @property
    def digest(self) -> str:
        """The digest that MLflow's dataset carries."""
        return self.sha256[:32]

    @property
    def link(self) -> str:
        """Its name in the lineage."""
        name = "dataset" if self.source_type == "lerobot" else self.context
        return f"{name}.{self.part}" if self.part else name


_COLUMN_TYPES = {"float32": "float", "float64": "double", "int32": "integer", "int64": "long", "bool": "boolean"}


def lerobot_dataset(root: str | Path, sha256: str, context: str = "training") -> DatasetInput:
    """The LeRobot dataset at `root` as a dataset input.

    Raises:
        DatasetError: ``meta/info.json`` is missing or not JSON.
    """
    from rlinf_isaac.data.lerobot.files import read_json  # pyarrow comes with it

    root = Path(root).absolute()
    info = read_json(root / "meta" / "info.json")
    features = info.get("features", {})
    columns = [
        {"name": name, "type": _COLUMN_TYPES.get(feature.get("dtype"), "binary")} for name, feature in features.items()
    ]
    return DatasetInput(
        name=root.name,
        sha256=sha256,
        context=context,
        source_type="lerobot",
        source={"root": str(root), "sha256": sha256},
        profile={key: info.get(f"total_{key}") for key in ("episodes", "frames", "tasks")} | {"fps": info.get("fps")},
        schema={"mlflow_colspec": columns},
    )


def lerobot_datasets(roots: Sequence[Path], sha256: str) -> list[DatasetInput]:
    """The LeRobot dataset with this digest, or those of the mixture with it, as dataset inputs of a training."""
    from rlinf_isaac.data.lerobot.dataset_digest import dataset_digest

    if len(roots) == 1:
        return [lerobot_dataset(roots[0], sha256)]
    return [
        replace(lerobot_dataset(root, dataset_digest(root)), part=number) for number, root in enumerate(roots, start=1)
    ]


def evaluation_dataset(settings: Mapping[str, Any]) -> DatasetInput:
    """The episodes of an evaluation as a dataset: success rates count as comparable when this is equal.

    Args:
        settings: JSON-ready, what decides which episodes the policy meets: the config's sections env and eval. What
            only decides how they are run or shown (`NOT_WHAT`) is left out. With a ``stop_rule`` that is not None,
            ``episodes`` is their largest number.
    """
    source = {key: value for key, value in sorted(settings.items()) if key not in NOT_WHAT}
    if source.get("stop_rule") is None:
        source.pop("stop_rule", None)
    name = f"{source['task']} x {'up to ' if 'stop_rule' in source else ''}{source['episodes']} episodes"
    return DatasetInput(name, json_digest(source), "evaluation", "simulator", source, {"episodes": source["episodes"]})


def simulator_tags(environment: Mapping[str, Any]) -> dict[str, str]:
    """What rendered and moved, from an `EnvIdentity` as a dict: ``{"sim.backend": "mujoco-4.0.0", ...}``."""
    names = ("backend", "assets", "renderer", "image_size", "prompt")
    return {f"sim.{name}": str(environment[name]) for name in names if name in environment}


def digest_tags(links: Mapping[str, str | None]) -> dict[str, str]:
    """``{"norm_stats": <sha256>}`` -> ``{"lineage.norm_stats.sha256": <sha256>}``; links to nothing are left out."""
    return {lineage_tag(link): digest for link, digest in links.items() if digest is not None}


def provenance_tags(project_root: str | Path) -> dict[str, str]:
    """Tags that say which code, on which machine, started how. What cannot be found out is left out."""
    tags = {f"{VERSION_TAG}{name}": version for name in VERSIONS_OF if (version := installed_version(name))}
    tags |= {
        f"{VERSION_TAG}rlinf_isaac": rlinf_isaac.__version__,
        f"{VERSION_TAG}python": platform.python_version(),
        "platform": platform.platform(),
        "command": shlex.join(sys.orig_argv),
    }
    tags |= digest_tags({"env": environment_digest()})
    return tags | git_tags(project_root) | gpu_tags() | _user_tags()


@cache
def environment_digest() -> str:
    """sha256 over the Python version and the name and version of every installed distribution."""
    found = (dist.metadata for dist in importlib.metadata.distributions())  # parsed at each access
    installed = {each["Name"].lower().replace("_", "-"): each["Version"] for each in found if each["Name"]}
    return json_digest({"python": platform.python_version(), "distributions": installed})


def git_tags(root: str | Path) -> dict[str, str]:
    """Commit, branch and dirtiness of the checkout that holds `root`. The digest of the diff tells two dirty states of
    one commit apart (``mlflow run`` itself records the commit only: a dirty tree looks clean)."""
    commit = output_of("git", "-C", str(root), "rev-parse", "HEAD")
    status = output_of("git", "-C", str(root), "status", "--porcelain")
    if commit is None or status is None:
        return {}
    tags = {COMMIT_TAG: commit.decode().strip(), DIRTY_TAG: str(bool(status.strip())).lower()}
    if branch := (output_of("git", "-C", str(root), "branch", "--show-current") or b"").decode().strip():
        tags["mlflow.source.git.branch"] = branch
    if status.strip():
        diff = output_of("git", "-C", str(root), "diff", "HEAD", "--binary") or b""
        tags["git.diff.sha256"] = bytes_digest(diff)
        tags["git.status"] = status.decode(errors="replace")[:4000]
    return tags


def gpu_tags() -> dict[str, str]:
    """``gpu`` and ``gpu.driver``, where there is one."""
    output = output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    lines = [line.strip() for line in (output or b"").decode(errors="replace").splitlines() if "," in line]
    if not lines:
        return {}
    names = [line.rpartition(",")[0].strip() for line in lines]
    return {"gpu": "; ".join(names), "gpu.driver": lines[0].rpartition(",")[2].strip()}


def _user_tags() -> dict[str, str]:
    try:
        return {"mlflow.user": getpass.getuser()}
    except (KeyError, OSError):  # a container's numeric user without a name
        return {}
