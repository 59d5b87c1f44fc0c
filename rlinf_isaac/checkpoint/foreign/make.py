"""Makes a bundle of a checkpoint that OpenPI, RLinf, lerobot or another program wrote. Needs torch.

Safetensors files whose names need no change are copied byte for byte, shards as shards; all other weights are written
to one ``model.safetensors``. ``config.json`` records which settings of the training are known, from which source, and
which are not known.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.convert.plan import Output, OutputFile, plan_files
from rlinf_isaac.checkpoint.convert.source import Source, as_bytes, blocks
from rlinf_isaac.checkpoint.convert.tensors import AnyDense
from rlinf_isaac.checkpoint.convert.write import planned_digests, write_files
from rlinf_isaac.checkpoint.description import config_digest, foreign_config
from rlinf_isaac.checkpoint.facts import ASSUMED, FACTS, NOT_KNOWN, not_known, with_assumed
from rlinf_isaac.checkpoint.find_weights import name_within
from rlinf_isaac.checkpoint.foreign.bundle_content import BundleContent
from rlinf_isaac.checkpoint.foreign.make_plan import AS_STORED, Conversion, fitting_presets, plan_conversion
from rlinf_isaac.checkpoint.foreign.sources import Located
from rlinf_isaac.checkpoint.header import INDEX_FILE, WEIGHTS_FILE
from rlinf_isaac.checkpoint.verify import CONFIG_FILE, norm_stats_files
from rlinf_isaac.checkpoint.weights import check_finite
from rlinf_isaac.checkpoint.write_bundle import assemble_bundle, config_bytes
from rlinf_isaac.ground.digest import bytes_digest, file_digest
from rlinf_isaac.ground.errors import BundleError, WeightsError

__all__ = ["AS_STORED", "BundleContent", "Conversion", "find_made", "fitting_presets", "make_bundle", "plan_conversion"]


def make_bundle(
    conversion: Conversion, content: BundleContent, output: str | Path, *, overwrite: bool = False
) -> Bundle:
    """Write the bundle of a checkpoint, atomically.

    Args:
        conversion: the checkpoint's weights, checked against ``content.config.model``.
        content: everything that the bundle holds besides its weights.
        output: the bundle's directory.
        overwrite: replace an existing bundle.

    Raises:
        BundleError: the bundle exists, or a part of `content` cannot be part of one.
        WeightsError: a weight is NaN or infinite, or tied weights differ.
        TokenizerError: the tokenizer of the config cannot be read.
    """
    return assemble_bundle(
        output,
        write_weights=lambda directory: _write_weights(conversion, directory),
        config=_description(conversion, content),
        norm_stats=content.norm_stats,
        asset_id=content.asset_id,
        step=content.step,
        lineage=_lineage(conversion.source, content),
        overwrite=overwrite,
    )


def find_made(conversion: Conversion, content: BundleContent, output: str | Path) -> Bundle | None:
    """The bundle at `output`, if it is complete and `make_bundle` with the same arguments would write the same bytes.

    The source is read twice and the bundle once; nothing is written.
    """
    try:
        bundle = read_bundle(output)
    except BundleError:
        return None
    digests, tied = _weights_digests(conversion)
    digests[CONFIG_FILE] = bytes_digest(config_bytes(_description(conversion, content), Path(output)))
    for file in norm_stats_files(bundle.path, content.asset_id):
        digests[file.relative_to(bundle.path).as_posix()] = bytes_digest(content.norm_stats)
    manifest = bundle.manifest
    present = {name: entry.sha256 for name, entry in manifest.files.items()}, manifest.step, manifest.asset_id
    same = present == (digests, content.step, content.asset_id)
    same = same and (manifest.lineage, manifest.tied) == (_lineage(conversion.source, content), tied)
    return bundle if same else None


def _description(conversion: Conversion, content: BundleContent) -> dict[str, Any]:
    """The content of ``config.json``."""
    source = conversion.source
    description = _describe(source, content)
    description["norm_stats"] = dict(content.norm_stats_record)
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


def _lineage(source: Located, content: BundleContent) -> dict[str, str | None]:
    return {
        "config": config_digest(content.config),
        "dataset": None if content.dataset is None else content.dataset.digest,
        "norm_stats": bytes_digest(content.norm_stats),
        "parent": source.parent,
    }


def _describe(source: Located, content: BundleContent) -> dict[str, Any]:
    """The content of ``config.json`` without the record of the source's files.

    If the source is a bundle itself, the facts that are known in it stay known.
    """
    if source.kind != "bundle":
        return foreign_config(content.config, content.dataset, stated=content.stated, assumed=content.assumed)
    parent = read_bundle(source.path, verify=False)
    unknown = not_known(parent)
    described = foreign_config(content.config, content.dataset)
    earlier = parent.config.get(ASSUMED) or {}
    if content.dataset is None:
        inherited = parent.config.keys() - {"job", "norm_stats", "source", NOT_KNOWN}
        described |= {key: parent.config[key] for key in inherited}
    else:
        described["tokenizer"] = parent.config.get("tokenizer")
        # The dataset replaces assumptions about prompt, rate and layouts; those on keys of the job stay.
        if job_facts := {name: value for name, value in earlier.items() if FACTS[name].key is not None}:
            described[ASSUMED] = {**job_facts, **(described.get(ASSUMED) or {})}
    described[NOT_KNOWN] = left = [name for name in described[NOT_KNOWN] if name in unknown]
    new = {name: value for name, value in content.assumed.items() if name in unknown}
    return with_assumed(described, left, new, content.config) if new else described


def _said(source: Located) -> dict[str, Any]:
    """JSON-ready record of what the source's files said. For a bundle it has only the remarks: its job is recorded."""
    if source.kind == "bundle":
        return {"remarks": list(source.said.remarks)}
    values, places = source.said.values, source.said.places
    return {
        "values": {key: {"value": values[key], "place": places[key]} for key in sorted(values)},
        "doubtful": list(source.said.doubtful),
        "remarks": list(source.said.remarks),
    }


def _write_weights(conversion: Conversion, directory: Path) -> Mapping[str, str]:
    """Write the safetensors files. Returns the ties: name that is not stored -> name of the tensor it shares."""
    check_twins(conversion)
    if conversion.copies_files:
        return _copy_files(conversion, directory)
    files, ties = _files(conversion)
    write_files(files, directory, conversion.stored, hashes=False, inspect=_check_finite)
    return ties


def _weights_digests(conversion: Conversion) -> tuple[dict[str, str], Mapping[str, str]]:
    """sha256 of each file that `_write_weights` would write, and the ties that it would return."""
    if conversion.copies_files:
        return {name: file_digest(file) for name, file in _copied(conversion).items()}, conversion.plan.ties
    files, ties = _files(conversion)
    return planned_digests(files, conversion.stored), ties


def _files(conversion: Conversion) -> tuple[tuple[OutputFile, ...], Mapping[str, str]]:
    # Ties are recorded in the manifest, not in the file's metadata: with a single metadata entry the file equals the
    # one that save_file writes.
    files, ties, _ = plan_files(conversion.outputs, conversion.options.max_shard_size, note_ties=False)
    return files, ties


def _copied(conversion: Conversion) -> dict[str, Path]:
    """Name in the bundle -> file to copy: one file, or shards and their index."""
    files = conversion.source.weights.files
    if len(files) == 1:
        return {WEIGHTS_FILE: files[0]}
    return {file.name: file for file in (*files, files[0].parent / INDEX_FILE)}


def _copy_files(conversion: Conversion, directory: Path) -> Mapping[str, str]:
    """Copy the files unchanged. Their values are checked for NaN and infinity one tensor at a time."""
    with Source(conversion.stored) as source:
        for output in {output.stored: output for output in conversion.outputs}.values():
            _check_finite(output, source.tensor(output.source))
    for name, file in _copied(conversion).items():
        shutil.copyfile(file, directory / name)
    return conversion.plan.ties


def _check_finite(output: Output, values: torch.Tensor) -> None:
    check_finite(output.name, values)


def check_twins(conversion: Conversion) -> None:
    """Check that a tied parameter that is stored under both names has the same value under both.

    Raises:
        WeightsError: the values differ.
    """
    with Source(conversion.stored) as source:
        for name, *twins in conversion.twins:
            if len({_fingerprint(source, twin) for twin in twins}) > 1:
                cause = f"the checkpoint stores {name} and the parameter it is tied to with different values"
                cure = (
                    "this checkpoint belongs to another model; use that model. If lerobot wrote it, keep its "
                    "config.json beside it: then the head, which lerobot's model does not read, is left out"
                )
                raise WeightsError.of("tied-weights-differ", cause, cure)


def _fingerprint(source: Source, tensor: AnyDense) -> tuple[str, str]:
    digest = hashlib.sha256()
    for block in blocks(source.tensor(tensor)):
        digest.update(as_bytes(block))
    return tensor.dtype, digest.hexdigest()
