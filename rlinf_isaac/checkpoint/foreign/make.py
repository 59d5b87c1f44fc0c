"""A bundle out of a checkpoint that OpenPI, RLinf, lerobot or anyone else wrote. Needs torch.

Safetensors files whose names need no change are copied byte for byte, shards as shards; anything else becomes one
``model.safetensors``. What is known of the training, by whose word, and what is not goes into ``config.json``.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.convert.plan import Output, OutputFile, plan_files
from rlinf_isaac.checkpoint.convert.source import Source, as_bytes, blocks
from rlinf_isaac.checkpoint.convert.tensors import AnyDense
from rlinf_isaac.checkpoint.convert.write import planned_digests, write_files
from rlinf_isaac.checkpoint.description import config_digest, foreign_config
from rlinf_isaac.checkpoint.facts import ASSUMED, FACTS, NOT_KNOWN, not_known, with_assumed
from rlinf_isaac.checkpoint.find_weights import name_within
from rlinf_isaac.checkpoint.foreign.make_plan import AS_STORED, Conversion, fitting_presets, plan_conversion
from rlinf_isaac.checkpoint.foreign.sources import Located
from rlinf_isaac.checkpoint.header import INDEX_FILE, WEIGHTS_FILE
from rlinf_isaac.checkpoint.verify import CONFIG_FILE, norm_stats_files
from rlinf_isaac.checkpoint.weights import check_finite
from rlinf_isaac.checkpoint.write_bundle import assemble_bundle, config_bytes
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.ground.digest import bytes_digest, file_digest
from rlinf_isaac.ground.errors import BundleError, WeightsError

if TYPE_CHECKING:
    from rlinf_isaac.data.lerobot.reader import LeRobotDataset

__all__ = ["AS_STORED", "Conversion", "find_made", "fitting_presets", "make_bundle", "plan_conversion"]


def make_bundle(
    conversion: Conversion,
    config: JobConfig,
    output: str | Path,
    *,
    asset_id: str,
    step: int,
    norm_stats: bytes,
    norm_stats_record: Mapping[str, Any],
    dataset: LeRobotDataset | None = None,
    stated: Collection[str] = (),
    assumed: Mapping[str, Any] | None = None,
    overwrite: bool = False,
) -> Bundle:
    """Write the bundle of a checkpoint, atomically.

    Args:
        conversion: the checkpoint's weights, checked against ``config.model``.
        config: the job that trained it, as far as it is known: `eval` runs with it.
        output: the bundle's directory.
        asset_id: name under which OpenPI and RLinf look for the norm stats.
        step: optimiser step of the checkpoint.
        norm_stats: bytes of ``norm_stats.json``, with canonical keys.
        norm_stats_record: JSON-ready, where they came from and how their keys were changed.
        dataset: what the checkpoint was trained on, if that is known.
        stated: facts (`facts.FACTS`) whose value in `config` the checkpoint's own files say.
        assumed: facts that a person says, with their values.
        overwrite: replace an existing bundle.

    Raises:
        BundleError: the bundle exists, or an argument cannot be part of one.
        WeightsError: a weight is NaN or infinite, or tied weights differ.
        TokenizerError: the tokenizer of `config` cannot be read.
    """
    return assemble_bundle(
        output,
        write_weights=lambda directory: _write_weights(conversion, directory),
        config=_description(conversion, config, norm_stats_record, dataset, stated, assumed),
        norm_stats=norm_stats,
        asset_id=asset_id,
        step=step,
        lineage=_lineage(conversion.source, config, norm_stats, dataset),
        overwrite=overwrite,
    )


def find_made(
    conversion: Conversion,
    config: JobConfig,
    output: str | Path,
    *,
    asset_id: str,
    step: int,
    norm_stats: bytes,
    norm_stats_record: Mapping[str, Any],
    dataset: LeRobotDataset | None = None,
    stated: Collection[str] = (),
    assumed: Mapping[str, Any] | None = None,
) -> Bundle | None:
    """The bundle at `output`, if it is whole and `make_bundle` with the same arguments would write the same bytes.

    The source is read twice and the bundle once; nothing is written.
    """
    try:
        there = read_bundle(output)
    except BundleError:
        return None
    description = _description(conversion, config, norm_stats_record, dataset, stated, assumed)
    digests, tied = _weights_digests(conversion)
    digests[CONFIG_FILE] = bytes_digest(config_bytes(description, Path(output)))
    for file in norm_stats_files(there.path, asset_id):
        digests[file.relative_to(there.path).as_posix()] = bytes_digest(norm_stats)
    manifest = there.manifest
    found = {name: entry.sha256 for name, entry in manifest.files.items()}, manifest.step, manifest.asset_id
    links = _lineage(conversion.source, config, norm_stats, dataset)
    same = found == (digests, step, asset_id) and (manifest.lineage, manifest.tied) == (links, tied)
    return there if same else None


def _description(
    conversion: Conversion,
    config: JobConfig,
    norm_stats_record: Mapping[str, Any],
    dataset: LeRobotDataset | None,
    stated: Collection[str],
    assumed: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of ``config.json``."""
    source = conversion.source
    description = _describe(source, config, dataset, stated, assumed)
    description["norm_stats"] = dict(norm_stats_record)
    description["source"] = {
        "kind": source.kind,
        "format": source.weights.format,
        **({"hub": source.hub} if source.hub else {}),
        "files": {name_within(source.path, file): file_digest(file) for file in source.weights.files},
        **({"layout": conversion.layout} if conversion.layout else {}),
        **({"notes": list(conversion.stored.notes)} if conversion.stored.notes else {}),
        "stripped": list(conversion.stripped),
        "excluded": list(conversion.excluded),
        **({"zeros": list(conversion.plan.unread)} if conversion.plan.unread else {}),
        **({"said": _said(source)} if source.said.places or source.said.remarks else {}),
    }
    return description


def _lineage(
    source: Located, config: JobConfig, norm_stats: bytes, dataset: LeRobotDataset | None
) -> dict[str, str | None]:
    return {
        "config": config_digest(config),
        "dataset": None if dataset is None else dataset.digest,
        "norm_stats": bytes_digest(norm_stats),
        "parent": source.parent,
    }


def _describe(
    source: Located,
    config: JobConfig,
    dataset: LeRobotDataset | None,
    stated: Collection[str],
    assumed: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """The content of ``config.json``; that of a bundle which is made anew keeps what the first one knew."""
    if source.kind != "bundle":
        return foreign_config(config, dataset, stated=stated, assumed=assumed)
    parent = read_bundle(source.path, verify=False)
    unknown = not_known(parent)
    described = foreign_config(config, dataset)
    earlier = parent.config.get(ASSUMED) or {}
    if dataset is None:
        kept = parent.config.keys() - {"job", "norm_stats", "source", NOT_KNOWN}
        described |= {key: parent.config[key] for key in kept}
    else:
        described["tokenizer"] = parent.config.get("tokenizer")
        if of_keys := {name: value for name, value in earlier.items() if FACTS[name].key is not None}:
            described[ASSUMED] = {**of_keys, **(described.get(ASSUMED) or {})}
    described[NOT_KNOWN] = left = [name for name in described[NOT_KNOWN] if name in unknown]
    new = {name: value for name, value in (assumed or {}).items() if name in unknown}
    return with_assumed(described, left, new, config) if new else described


def _said(source: Located) -> dict[str, Any]:
    """What the source's files said, for the record; not of a bundle, whose own record is the job."""
    if source.kind == "bundle":
        return {"remarks": list(source.said.remarks)}
    values, places = source.said.values, source.said.places
    return {
        "values": {key: {"value": values[key], "place": places[key]} for key in sorted(values)},
        "doubtful": list(source.said.doubtful),
        "remarks": list(source.said.remarks),
    }


def _write_weights(conversion: Conversion, directory: Path) -> Mapping[str, str]:
    """Write the safetensors files; returns name that is not stored -> name of the tensor it shares."""
    check_twins(conversion)
    if conversion.copies_files:
        return _copy_files(conversion, directory)
    files, ties = _files(conversion)
    write_files(files, directory, conversion.stored, hashes=False, inspect=_check_finite)
    return ties


def _weights_digests(conversion: Conversion) -> tuple[dict[str, str], Mapping[str, str]]:
    """sha256 of each file that `_write_weights` writes, and what it returns."""
    if conversion.copies_files:
        return {name: file_digest(file) for name, file in _copied(conversion).items()}, conversion.plan.ties
    files, ties = _files(conversion)
    return planned_digests(files, conversion.stored), ties


def _files(conversion: Conversion) -> tuple[tuple[OutputFile, ...], Mapping[str, str]]:
    # The manifest says what is tied. With a single entry in its metadata a file is the one that save_file writes.
    files, ties, _ = plan_files(conversion.outputs, conversion.options.max_shard_size, note_ties=False)
    return files, ties


def _copied(conversion: Conversion) -> dict[str, Path]:
    """Name in the bundle -> file to copy: one file, or shards and their index."""
    files = conversion.source.weights.files
    if len(files) == 1:
        return {WEIGHTS_FILE: files[0]}
    return {file.name: file for file in (*files, files[0].parent / INDEX_FILE)}


def _copy_files(conversion: Conversion, directory: Path) -> Mapping[str, str]:
    """Copy the files as they are. The values are looked at one tensor at a time."""
    with Source(conversion.stored) as source:
        for output in {output.stored: output for output in conversion.outputs}.values():
            _check_finite(output, source.tensor(output.source))
    for name, file in _copied(conversion).items():
        shutil.copyfile(file, directory / name)
    return conversion.plan.ties


def _check_finite(output: Output, values: torch.Tensor) -> None:
    check_finite(output.name, values)


def check_twins(conversion: Conversion) -> None:
    """A checkpoint may store both names of a tied parameter, but then with one value.

    Raises:
        WeightsError: the values differ.
    """
    with Source(conversion.stored) as source:
        for name, *twins in conversion.twins:
            if len({_fingerprint(source, twin) for twin in twins}) > 1:
                cause = f"the checkpoint stores {name} and the parameter it is tied to with different values"
                cure = (
                    "this is the checkpoint of another model; use that one. Of a policy that lerobot wrote keep its "
                    "config.json beside it: then the head, which lerobot's model does not read, is left out"
                )
                raise WeightsError.of("tied-weights-differ", cause, cure)


def _fingerprint(source: Source, tensor: AnyDense) -> tuple[str, str]:
    digest = hashlib.sha256()
    for block in blocks(source.tensor(tensor)):
        digest.update(as_bytes(block))
    return tensor.dtype, digest.hexdigest()
