"""Checkpoint roots with one fault. `break_it` edits a copy of a root that holds the bundles ``2`` and ``4`` of one run.

Some faults are sealed: the manifest is written anew over them, as a careless script would, so that every hash is right
and only what the files mean is wrong.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from corpus.case import Case

from rlinf_isaac.checkpoint.header import read_keys
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE, FileEntry, Manifest
from rlinf_isaac.checkpoint.verify import list_files, norm_stats_files
from rlinf_isaac.ground.digest import file_digest
from rlinf_isaac.ground.errors import BundleError

WEIGHTS = "4/model.safetensors"


def reseal(bundle: Path, **changes: Any) -> None:
    """Write a well-formed manifest over whatever the directory now holds, without looking at what it means."""
    manifest = read_manifest(bundle)
    names = list_files(bundle) - {MANIFEST_FILE}
    files = {name: FileEntry(file_digest(bundle / name), (bundle / name).stat().st_size) for name in names}
    with suppress(BundleError):  # weights that are no safetensors file keep their description
        changes.setdefault("dtypes", dict(Counter(info.dtype for info in read_keys(bundle).values())))
    (bundle / MANIFEST_FILE).write_bytes(replace(manifest, files=files, **changes).to_bytes())


def read_manifest(bundle: Path) -> Manifest:
    return Manifest.from_bytes((bundle / MANIFEST_FILE).read_bytes())


def edit_header(file: Path, edit: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Replace the JSON header of a safetensors file; the data stays."""
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.dumps(edit(json.loads(data[8 : 8 + length]))).encode()
    file.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])


def _flip(name: str, position: int = -1) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        data = bytearray((root / name).read_bytes())
        data[position] ^= 1
        (root / name).write_bytes(data)

    return edit


def _truncate(name: str) -> Callable[[Path], None]:
    def edit(root: Path) -> None:
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: len(data) // 2])

    return edit


def _remove(name: str) -> Callable[[Path], None]:
    return lambda root: (root / name).unlink()


def _sealed(edit: Callable[[Path], None], **changes: Any) -> Callable[[Path], None]:
    def edit_and_seal(root: Path) -> None:
        edit(root)
        reseal(root / "4", **changes)

    return edit_and_seal


def _edit_norm_stats(*places: int) -> Callable[[Path], None]:
    """Another mean, of the same length, where OpenPI (0) and RLinf (1) look."""

    def edit(root: Path) -> None:
        for place in places:
            file = norm_stats_files(root / "4", read_manifest(root / "4").asset_id)[place]
            text = file.read_text()
            first = text.index(".") + 1
            file.write_text(text[:first] + ("1" if text[first] != "1" else "2") + text[first + 1 :])

    return edit


def _norm_stats_no_json(root: Path) -> None:
    for file in norm_stats_files(root / "4", read_manifest(root / "4").asset_id):
        file.write_text("mean: [0.0]")
    digest = file_digest(file)
    reseal(root / "4", lineage={**read_manifest(root / "4").lineage, "norm_stats": digest})


def _edit_config(edit: Callable[[dict[str, Any]], object], step: str = "4") -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        file = root / step / "config.json"
        values = json.loads(file.read_bytes())
        edit(values)
        file.write_text(json.dumps(values))
        reseal(root / step)

    return apply


def _edit_weights(edit: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[Path], None]:
    return _sealed(lambda root: edit_header(root / WEIGHTS, edit))


def _transpose(header: dict[str, Any]) -> dict[str, Any]:
    header["paligemma_with_expert.paligemma.lm_head.weight"]["shape"].reverse()
    return header


def _as_integers(header: dict[str, Any]) -> dict[str, Any]:
    return {name: entry | ({"dtype": "I32"} if name != "__metadata__" else {}) for name, entry in header.items()}


def _renamed(rename: Callable[[str], str]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda header: {rename(name) if name != "__metadata__" else name: value for name, value in header.items()}


def _swap_weights(root: Path) -> None:
    first, second = root / "2" / "model.safetensors", root / WEIGHTS
    first.rename(root / "aside")
    second.rename(first)
    (root / "aside").rename(second)


def _lie_about_the_header(root: Path) -> None:
    data = (root / WEIGHTS).read_bytes()
    (root / WEIGHTS).write_bytes((int.from_bytes(data[:8], "little") * 1000).to_bytes(8, "little") + data[8:])
    reseal(root / "4")


def _newer_manifest(root: Path) -> None:
    file = root / "4" / MANIFEST_FILE
    file.write_text(file.read_text().replace('"format_version": 1', '"format_version": 2'))


def _edit_manifest(root: Path) -> None:
    file = root / "4" / MANIFEST_FILE
    file.write_text(file.read_text().replace('"step": 4', '"step": 5'))


def _other_dataset(root: Path) -> None:
    reseal(root / "4", lineage={**read_manifest(root / "4").lineage, "dataset": "0" * 64})


def _add(name: str, content: bytes = b"") -> Callable[[Path], None]:
    return lambda root: (root / name).write_bytes(content) and None


def _empty(root: Path) -> None:
    for step in ("2", "4"):
        shutil.rmtree(root / step)


CASES = [
    Case("missing root", "missing-ckpt-root", shutil.rmtree),
    Case("empty root", "empty-ckpt-root", _empty),
    Case("renamed step directory", "wrong-step", lambda root: (root / "4").rename(root / "6") and None),
    Case("two of one step", "ambiguous-step", lambda root: shutil.copytree(root / "4", root / "step_4") and None),
    Case("missing manifest", "not-a-bundle", _remove("4/bundle.json")),
    Case("truncated manifest", "manifest-damaged", _truncate("4/bundle.json")),
    Case("edited manifest", "manifest-damaged", _edit_manifest),
    Case("manifest of a newer format", "manifest-version", _newer_manifest),
    Case("missing weights", "bundle-file-missing", _remove(WEIGHTS)),
    Case("truncated weights", "bundle-file-size", _truncate(WEIGHTS)),
    Case(
        "weights are a Git LFS pointer",
        "bundle-file-size",
        _add(WEIGHTS, b"version https://git-lfs.github.com/spec/v1"),
    ),
    Case("flipped byte in the weights", "bundle-file-changed", _flip(WEIGHTS)),
    Case("weights of another step", "bundle-file-changed", _swap_weights),
    Case("missing config", "bundle-file-missing", _remove("4/config.json")),
    Case("flipped byte in the config", "bundle-file-changed", _flip("4/config.json", 40)),
    Case("norm stats edited in one place", "bundle-file-changed", _edit_norm_stats(1)),
    Case("norm stats edited in both places", "bundle-file-changed", _edit_norm_stats(0, 1)),
    Case("norm stats edited in one place, sealed", "norm-stats-differ", _sealed(_edit_norm_stats(0))),
    Case("norm stats edited in both places, sealed", "norm-stats-mismatch", _sealed(_edit_norm_stats(0, 1))),
    Case("norm stats are not JSON, sealed", "bundle-json", _norm_stats_no_json),
    Case("stray shard", "bundle-file-added", _add("4/model-00002-of-00002.safetensors", b"\2\0\0\0\0\0\0\0{}")),
    Case("stray shard, sealed", "stray-weights", _sealed(_add("4/old.safetensors", b"\2\0\0\0\0\0\0\0{}"))),
    Case("header lies about its size, sealed", "damaged-safetensors", _lie_about_the_header),
    Case(
        "renamed key, sealed",
        "weights-keys",
        _edit_weights(_renamed(lambda name: name.replace("action_in_proj.bias", "action_in_projection.bias"))),
    ),
    Case(
        "RLinf's own layout, sealed",
        "rlinf-layout",
        _sealed(lambda root: edit_header(root / WEIGHTS, _renamed(lambda name: f"llm.{name}")), tied={}),
    ),
    Case("transposed weight, sealed", "weights-shapes", _edit_weights(_transpose)),
    Case("integer weights, sealed", "weights-dtype", _edit_weights(_as_integers)),
    Case("tied to nothing, sealed", "bundle-ties", lambda root: reseal(root / "4", tied={"a": "b"})),
    Case(
        "another tokenizer, sealed",
        "tokenizer-mismatch",
        _edit_config(lambda values: values["tokenizer"].update(sha256="0" * 64)),
    ),
    Case("no word of the training, sealed", "foreign-bundle", _edit_config(lambda values: values.pop("job"), "2")),
    Case("trained on other data, sealed", "mixed-checkpoints", _other_dataset),
]

NEED_HASHING = {"flipped byte in the weights", "weights of another step"}
"""Cases that only the sha256 of the weights shows, which a quick check leaves out."""
