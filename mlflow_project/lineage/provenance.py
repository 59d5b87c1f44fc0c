"""MLflow tags that say where a result came from: the digests of the chain dataset -> norm stats -> checkpoint ->
evaluation, and the state of code, environment and machine. Environment variables are never copied into a tag, because
they may contain secrets.
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
from typing import TYPE_CHECKING, Any

import rlinf_isaac
from mlflow_project.vocabulary import (
    BRANCH_TAG,
    COMMAND_TAG,
    COMMIT_TAG,
    DATASET_HUB_TAG,
    DEVICE_TAG,
    DIRTY_TAG,
    ENV_FINDINGS_TAG,
    HOST_TAG,
    PRESET_TAG,
    TASK_TAG,
    USER_TAG,
    VERSION_TAG,
    lineage_tag,
)
from rlinf_isaac.ground.digest import bytes_digest, json_digest
from rlinf_isaac.ground.hub import SCHEME, uri_of
from rlinf_isaac.ground.probe import installed_version, output_of

if TYPE_CHECKING:
    from rlinf_isaac.config.schema import JobConfig

VERSIONS_OF = ("mlflow", "torch", "mujoco", "numpy", "gymnasium")
"""Packages whose versions get their own tag; ``lineage.env.sha256`` covers all packages."""


NOT_WHAT = ("num_envs", "videos", "video_size")
"""Evaluation settings that do not affect the episodes."""


@dataclass(frozen=True)
class DatasetInput:
    """A dataset as MLflow shows it.

    Attributes:
        name: name in the runs table.
        sha256: digest of the content. MLflow's dataset has its first 32 digits (MLflow allows 36 characters); the tag
            ``lineage.<link>.sha256`` has all of them.
        context: what the dataset is used for, ``training`` or ``evaluation``; shown beside the name.
        source_type: kind of `source`, ``lerobot`` or ``simulator``.
        source: JSON-ready; says how to find or make the data again.
        profile: JSON-ready; sizes of the dataset.
        schema: JSON-ready, ``{"mlflow_colspec": [{"name": ..., "type": ...}]}``, or None.
        part: number in a mixture, from 1; 0 for a single dataset.
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
        """Name of the dataset's lineage link."""
        name = "dataset" if self.source_type == "lerobot" else self.context
        return f"{name}.{self.part}" if self.part else name


_COLUMN_TYPES = {"float32": "float", "float64": "double", "int32": "integer", "int64": "long", "bool": "boolean"}


def lerobot_dataset(root: str | Path, sha256: str, context: str = "training") -> DatasetInput:
    """The LeRobot dataset at `root` as a dataset input.

    Raises:
        DatasetError: ``meta/info.json`` is missing or not JSON.
    """
    from rlinf_isaac.data.lerobot.files import read_json  # imports pyarrow

    root = Path(root).absolute()
    hub = uri_of(root)
    info = read_json(root / "meta" / "info.json")
    features = info.get("features", {})
    columns = [
        {"name": name, "type": _COLUMN_TYPES.get(feature.get("dtype"), "binary")} for name, feature in features.items()
    ]
    return DatasetInput(
        name=root.name if hub is None else hub.removeprefix(SCHEME).partition("@")[0],
        sha256=sha256,
        context=context,
        source_type="lerobot",
        source={"root": str(root), "sha256": sha256} | ({"hub": hub} if hub else {}),
        profile={key: info.get(f"total_{key}") for key in ("episodes", "frames", "tasks")} | {"fps": info.get("fps")},
        schema={"mlflow_colspec": columns},
    )


def lerobot_datasets(roots: Sequence[Path], sha256: str) -> list[DatasetInput]:
    """Dataset inputs of a training: the LeRobot dataset with digest `sha256`, or the datasets of the mixture."""
    from rlinf_isaac.data.lerobot.dataset_digest import dataset_digest

    if len(roots) == 1:
        return [lerobot_dataset(roots[0], sha256)]
    return [
        replace(lerobot_dataset(root, dataset_digest(root)), part=number) for number, root in enumerate(roots, start=1)
    ]


def hub_tags(roots: Sequence[Path]) -> dict[str, str]:
    """The tag with the URIs and commits of the datasets among these that came from the Hugging Face Hub, if any did."""
    uris = [uri for root in roots if (uri := uri_of(root))]
    return {DATASET_HUB_TAG: " ".join(uris)} if uris else {}


def evaluation_dataset(settings: Mapping[str, Any]) -> DatasetInput:
    """The episodes of an evaluation as a dataset. Success rates are comparable if this dataset is equal.

    Args:
        settings: JSON-ready; the config's sections env and eval, which define the episodes. Settings that do not affect
            the episodes (`NOT_WHAT`) are left out. With a ``stop_rule`` that is not None, ``episodes`` is the largest
            number of episodes.
    """
    source = {key: value for key, value in sorted(settings.items()) if key not in NOT_WHAT}
    if source.get("stop_rule") is None:
        source.pop("stop_rule", None)
    name = f"{source['task']} x {'up to ' if 'stop_rule' in source else ''}{source['episodes']} episodes"
    return DatasetInput(name, json_digest(source), "evaluation", "simulator", source, {"episodes": source["episodes"]})


def simulator_tags(environment: Mapping[str, Any]) -> dict[str, str]:
    """Tags that describe the simulator, from an `EnvIdentity` as a dict: ``{"sim.backend": "mujoco-4.0.0", ...}``, and
    what `doctor env` found of it on this machine."""
    from rlinf_isaac.envs.conformance.kept import kept_findings

    names = ("backend", "assets", "renderer", "image_size", "prompt")
    tags = {f"sim.{name}": str(environment[name]) for name in names if name in environment}
    return tags | {ENV_FINDINGS_TAG: kept_findings(environment)} if tags else {}


def task_tags(config: JobConfig) -> dict[str, str]:
    """Tags that say which task a run is about, by its name and the sha256 of its description, and with which preset and
    on which kind of device."""
    from rlinf_isaac.config.task import task_of  # needs omegaconf, which other trainers' interpreters may lack

    task, preset = task_of(config), Path(config.preset).stem
    about = {TASK_TAG: task.name, PRESET_TAG: preset, DEVICE_TAG: config.compute.device}
    return about | digest_tags({"task": task.digest})


def digest_tags(links: Mapping[str, str | None]) -> dict[str, str]:
    """``{"norm_stats": <sha256>}`` -> ``{"lineage.norm_stats.sha256": <sha256>}``; links with None are left out."""
    return {lineage_tag(link): digest for link, digest in links.items() if digest is not None}


def provenance_tags(project_root: str | Path) -> dict[str, str]:
    """Tags for the code, the machine and the command line. Facts that cannot be determined are left out."""
    tags = {f"{VERSION_TAG}{name}": version for name in VERSIONS_OF if (version := installed_version(name))}
    tags |= {
        f"{VERSION_TAG}rlinf_isaac": rlinf_isaac.__version__,
        f"{VERSION_TAG}python": platform.python_version(),
        "platform": platform.platform(),
        HOST_TAG: platform.node(),
        COMMAND_TAG: shlex.join(sys.orig_argv),
    }
    tags |= digest_tags({"env": environment_digest()})
    return tags | git_tags(project_root) | gpu_tags() | _user_tags()


@cache
def environment_digest() -> str:
    """sha256 over the Python version and the name and version of every installed distribution."""
    all_metadata = (dist.metadata for dist in importlib.metadata.distributions())  # each access parses it again
    installed = {meta["Name"].lower().replace("_", "-"): meta["Version"] for meta in all_metadata if meta["Name"]}
    return json_digest({"python": platform.python_version(), "distributions": installed})


def git_tags(root: str | Path) -> dict[str, str]:
    """Tags for the commit and branch of the checkout that contains `root`, and for uncommitted changes. The digest of
    the diff distinguishes two dirty states of one commit. (``mlflow run`` records only the commit, so a dirty tree
    looks clean.)"""
    commit = output_of("git", "-C", str(root), "rev-parse", "HEAD")
    status = output_of("git", "-C", str(root), "status", "--porcelain")
    if commit is None or status is None:
        return {}
    tags = {COMMIT_TAG: commit.decode().strip(), DIRTY_TAG: str(bool(status.strip())).lower()}
    if branch := (output_of("git", "-C", str(root), "branch", "--show-current") or b"").decode().strip():
        tags[BRANCH_TAG] = branch
    if status.strip():
        diff = output_of("git", "-C", str(root), "diff", "HEAD", "--binary") or b""
        tags["git.diff.sha256"] = bytes_digest(diff)
        tags["git.status"] = status.decode(errors="replace")[:4000]
    return tags


def gpu_tags() -> dict[str, str]:
    """Tags ``gpu`` and ``gpu.driver``; empty without an NVIDIA GPU."""
    output = output_of("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    lines = [line.strip() for line in (output or b"").decode(errors="replace").splitlines() if "," in line]
    if not lines:
        return {}
    names = [line.rpartition(",")[0].strip() for line in lines]
    return {"gpu": "; ".join(names), "gpu.driver": lines[0].rpartition(",")[2].strip()}


def _user_tags() -> dict[str, str]:
    try:
        return {USER_TAG: getpass.getuser()}
    except (KeyError, OSError):  # e.g. in a container, the user has a number but no name
        return {}
