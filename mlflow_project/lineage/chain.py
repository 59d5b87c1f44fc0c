"""The chain dataset -> norm stats -> checkpoint -> evaluation -> model, as a tree of verified nodes.

A node is ``ok`` if its bytes were hashed now and have the recorded digest, ``unseen`` if it is recorded but not on this
machine, and ``broken`` if its bytes differ from the record. This module verifies files;
`mlflow_project.lineage.chain_store` adds the runs and models of the MLflow store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from rlinf_isaac.checkpoint import facts
from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.description import config_digest
from rlinf_isaac.checkpoint.of_task import of_task
from rlinf_isaac.config import build_config
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.config.suite import configs_of
from rlinf_isaac.ground.digest import bytes_digest, json_digest
from rlinf_isaac.ground.errors import InvalidJob, Problem

State = Literal["ok", "unseen", "broken"]
FindDataset = Callable[[str], Path | None]
"""Returns the directory of the dataset with a digest, or None if it is not known."""


@dataclass(frozen=True)
class Node:
    """One link of the chain.

    Attributes:
        kind: ``model version``, ``model``, ``run``, ``evaluation``, ``checkpoint``, ``weights``, ``norm stats``,
            ``dataset``, ``config``, ``parent``, ``base``.
        title: name for people.
        where: path or id, or empty.
        state: ``ok``, ``unseen`` or ``broken`` (see the module's docstring).
        digest: sha256, or None.
        remarks: results of the verification.
        problems: why the node is broken.
        children: nodes that this one was made from.
    """

    kind: str
    title: str
    state: State
    digest: str | None = None
    where: str = ""
    remarks: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    children: tuple[Node, ...] = field(default=())

    def walk(self) -> Iterator[Node]:
        """This node and all its descendants, parents first."""
        yield self
        for child in self.children:
            yield from child.walk()

    def breaks(self) -> list[Problem]:
        """The problems of this node and all its descendants."""
        return [problem for node in self.walk() for problem in node.problems]


FindBase = Callable[[str], Path | None]
"""Returns the path of the base with a digest, as recorded when a training started from it, or None if not known."""
FindParent = Callable[[str], Node | None]
"""Returns the node of the bundle with a digest, or None if its directory is not known."""


def broken(
    kind: str, title: str, problem: Problem, digest: str | None = None, where: str = "", children: tuple[Node, ...] = ()
) -> Node:
    """Make a broken node with one problem."""
    return Node(kind, title, "broken", digest, where, problems=(problem,), children=children)


def checkpoint_node(
    path: Path,
    recorded: str | None,
    find_dataset: FindDataset,
    find_parent: FindParent = lambda digest: None,
    find_base: FindBase = lambda digest: None,
) -> Node:
    """Node of a checkpoint bundle and of everything it was made from; all files are hashed again.

    Args:
        path: directory of the bundle.
        recorded: recorded digest of the bundle; None if there is no record to compare with.
        find_dataset: finds the dataset.
        find_parent: finds the checkpoint that training started from.
        find_base: finds the foreign base that a fine-tuning started from.
    """
    try:
        bundle = read_bundle(path)
    except InvalidJob as error:
        return Node("checkpoint", path.name, "broken", recorded, str(path), problems=error.problems)
    children = (*_parts(bundle, find_dataset), _parent_node(bundle, find_parent, find_base))
    title, where = bundle.name, str(path)
    if recorded is not None and bundle.digest != recorded:
        cause = f"{path} is the checkpoint {bundle.digest}, but {recorded} was recorded"
        problem = Problem("checkpoint-replaced", cause, "restore the recorded checkpoint; another one has replaced it")
        return broken("checkpoint", title, problem, recorded, where, children)
    sizes = (f"{len(bundle.manifest.files)} files hashed", f"{bundle.manifest.parameters:,} parameters")
    remarks = (*sizes, *facts.remarks(bundle))
    return Node("checkpoint", title, "ok", bundle.digest, where, remarks, children=children)


def _parts(bundle: Bundle, find_dataset: FindDataset) -> Iterator[Node]:
    yield Node("weights", f"{bundle.manifest.key_count} tensors", "ok", bundle.weights_digest)
    config = None
    trained_by = bundle.config.get("trained_by", "sft")
    recorded, now = bundle.lineage.get("config"), config_digest(bundle.config.get("job") or {}, trained_by=trained_by)
    try:
        config = build_config(bundle.config.get("job"), f"{bundle.path}/config.json")
    except InvalidJob as error:
        yield Node("config", "config.json", "broken", recorded, problems=error.problems)
    else:
        if now == recorded:
            yield Node("config", f"preset {config.preset}", "ok", now)
        else:
            cause = f"{bundle.path}/config.json has the config {now}, but {recorded} was recorded for the checkpoint"
            problem = Problem("config-changed", cause, "restore the bundle as it was written")
            yield broken("config", f"preset {config.preset}", problem, recorded)
    yield _norm_stats_node(bundle, config, find_dataset)


def _parent_node(bundle: Bundle, find_parent: FindParent, find_base: FindBase) -> Node:
    """Node of what training started from: another bundle, files of another framework, or random weights."""
    digest, made_of = bundle.lineage.get("parent"), bundle.config.get("source")
    if (base := bundle.lineage.get("base")) is not None:
        return base_node(bundle.config.get("base") or {}, base, find_base(base))
    if digest is not None:
        return find_parent(digest) or Node("parent", "not here", "unseen", digest, "not known to this store")
    if made_of:
        files = ", ".join(f"{name} {sha256[:16]}" for name, sha256 in made_of["files"].items())
        return Node("source", f"{made_of['kind']} checkpoint", "unseen", where=files)
    return Node("parent", "none: trained from scratch", "ok")


def base_node(record: Mapping[str, Any], digest: str, path: Path | None) -> Node:
    """Node of the foreign base that a fine-tuning started from.

    Args:
        record: the checkpoint's record of the base (`foreign.base.Base.record`).
        digest: digest recorded in the lineage.
        path: recorded path of the base; None if it is not known.
    """
    from rlinf_isaac.checkpoint.foreign.base import changed_files

    revision = f" at {record['revision']}" if record.get("revision") else ""
    title = f"{record.get('name', 'unnamed')} ({record.get('kind', 'unknown')}{revision})"
    remarks = (str(record["parameters"]),) if record.get("parameters") else ()
    files = record.get("files") or {}
    if json_digest(files) != digest:
        cause = f"the files in the record of the base {title} do not have its digest {digest}"
        return broken("base", title, Problem("base-changed", cause, "restore the bundle as it was written"), digest)
    if path is None or not path.exists():
        where = "not known to this store" if path is None else f"{path} (gone)"
        return Node("base", title, "unseen", digest, where, remarks)
    if changes := list(changed_files(files, path)):
        cure = "restore the base as it was when training started from it"
        problems = tuple(Problem("base-changed", cause, cure) for cause in changes)
        return Node("base", title, "broken", digest, str(path), remarks, problems)
    return Node("base", title, "ok", digest, str(path), (*remarks, f"{len(files)} files hashed"))


def _norm_stats_node(bundle: Bundle, config: JobConfig | None, find_dataset: FindDataset) -> Node:
    """Node of the norm stats, with the dataset as its child; they are computed again if the dataset is here."""
    digest, title = bundle.lineage.get("norm_stats"), f"{bundle.asset_id}/norm_stats.json"
    node, roots = _datasets_node(bundle, find_dataset)
    record = bundle.config.get("norm_stats") or {}
    if record.get("of") == "base":
        name = record.get("asset_id")
        remarks = (f"norm stats of the base{f', {name}' if name else ''}, chosen instead of the dataset's own",)
        return Node("norm stats", title, "ok", digest, remarks=remarks, children=(node,))
    if record.get("identity"):
        remarks = ("identity: the weights were trained while the file had no effect",)
        return Node("norm stats", title, "ok", digest, remarks=remarks, children=(node,))
    if not roots or config is None:
        return Node("norm stats", title, "ok", digest, children=(node,))
    agreement = _compute_again(bundle, config, roots)
    if agreement is not None:
        return Node("norm stats", title, "ok", digest, remarks=(f"computed again: {agreement}",), children=(node,))
    places = " and ".join(map(str, roots))
    cause = f"the norm stats computed from {places} differ from those that {bundle.path} was trained with ({digest})"
    cure = "find out which dataset they were computed from, or train again with the norm stats of this dataset"
    return broken("norm stats", title, Problem("norm-stats-not-of-dataset", cause, cure), digest, children=(node,))


def _compute_again(bundle: Bundle, config: JobConfig, roots: Sequence[Path]) -> str | None:
    """How exactly the datasets' statistics agree with the bundle's; None if they do not agree."""
    from rlinf_isaac.data.mixture import open_datasets
    from rlinf_isaac.data.norm_stats import compute_norm_stats, from_json, settings_of
    from rlinf_isaac.data.norm_stats.differences import differing_keys, sample_rows

    if bundle.further_norm_stats:  # each task of a suite has its own
        found = [
            _compute_again(of_task(bundle, own.env.task), replace(own, suite={}), [root])
            for own, root in zip(configs_of(config), roots, strict=True)
        ]
        return None if None in found else "the same, of each task"
    dataset, settings = open_datasets(roots, _weights(bundle)), settings_of(config)
    stats, computed = from_json(bundle.norm_stats_bytes, str(bundle.path)), compute_norm_stats(dataset, **settings)
    if computed.digest == bytes_digest(bundle.norm_stats_bytes):
        return "the same"
    different = differing_keys(stats, computed, sample_rows(dataset, settings))
    return None if different else "the same within the error of OpenPI's estimator"


def _weights(bundle: Bundle) -> Sequence[float]:
    return (bundle.config.get("mixture") or {}).get("weights", ())


def _datasets_node(bundle: Bundle, find_dataset: FindDataset) -> tuple[Node, list[Path]]:
    """Node of the dataset, or of the mixture with its datasets as children; and the directories of the datasets, empty
    unless all of them have the recorded content."""
    digest, mixture = bundle.lineage.get("dataset"), bundle.config.get("mixture")
    if mixture is None:
        node, root = _dataset_node(digest, find_dataset)
        return node, [] if root is None else [root]
    from rlinf_isaac.data.mixture import mixture_digest

    parts, weights = mixture["datasets"], mixture["weights"]
    nodes, roots = zip(*(_dataset_node(part, find_dataset) for part in parts), strict=True)
    title = f"mixture of {len(parts)} datasets"
    if mixture_digest(parts, weights) != digest:
        cause = f"{bundle.path}/config.json names other datasets or weights than the mixture {digest} has"
        problem = Problem("mixture-changed", cause, "restore the bundle as it was written")
        return broken("dataset", title, problem, digest, children=nodes), []
    present = [root for root in roots if root is not None]
    remarks = (f"drawn {' : '.join(f'{weight:g}' for weight in weights)}",) if weights else ()
    node = Node("dataset", title, "ok", digest, remarks=remarks, children=nodes)
    return node, present if len(present) == len(parts) else []


def _dataset_node(digest: str | None, find_dataset: FindDataset) -> tuple[Node, Path | None]:
    """Node of the dataset; and its directory, if it has the recorded content."""
    from rlinf_isaac.data.lerobot.dataset_digest import dataset_digest

    if digest is None:
        problem = Problem(
            "dataset-unknown",
            "the checkpoint does not record which dataset it was trained on",
            "make the bundle again with --dataset, if you know it",
        )
        return broken("dataset", "unknown", problem), None
    root = find_dataset(digest)
    if root is None or not root.is_dir():
        where = "not known to this store" if root is None else f"{root} (gone)"
        return Node("dataset", "not here", "unseen", digest, where), None
    try:
        now = dataset_digest(root)
    except (InvalidJob, OSError) as error:
        cure = "restore the dataset"
        return broken("dataset", root.name, Problem("dataset-changed", str(error), cure), digest, str(root)), None
    if now != digest:
        cause = f"{root} has the digest {now}, but {digest} was recorded: the dataset has been edited"
        cure = "restore the recorded data, or record what changed as a new dataset and train on that"
        return broken("dataset", root.name, Problem("dataset-changed", cause, cure), digest, str(root)), None
    return Node("dataset", root.name, "ok", digest, str(root), (_describe(root),)), root


def _describe(root: Path) -> str:
    from rlinf_isaac.data.lerobot.files import read_json

    info: Mapping[str, Any] = read_json(root / "meta" / "info.json")
    return f"{info.get('total_episodes')} episodes, {info.get('total_frames')} frames, {info.get('fps')} Hz"
