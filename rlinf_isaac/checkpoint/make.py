"""A bundle out of a checkpoint that OpenPI, RLinf or anyone else wrote. Needs torch.

Before a byte is written, every name and shape is checked against the architecture. Safetensors files whose names need
no change are copied byte for byte, shards as shards; anything else becomes one ``model.safetensors``.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from rlinf_isaac.checkpoint.bundle import Bundle, assemble_bundle, read_bundle
from rlinf_isaac.checkpoint.coverage import LoadPlan, plan_model, strip_wrappers
from rlinf_isaac.checkpoint.description import checkpoint_config, config_digest
from rlinf_isaac.checkpoint.header import INDEX_FILE, WEIGHTS_FILE, TensorInfo
from rlinf_isaac.checkpoint.readers import StoredTensors, read_tensors
from rlinf_isaac.checkpoint.sources import Source, name_within
from rlinf_isaac.checkpoint.weights import check_finite, save_weights
from rlinf_isaac.config import load_config, preset_names
from rlinf_isaac.config.schema import JobConfig, ModelConfig
from rlinf_isaac.digest import bytes_digest, file_digest
from rlinf_isaac.errors import WeightsError
from rlinf_isaac.pi0.layout import TIED

if TYPE_CHECKING:
    from rlinf_isaac.data.lerobot_reader import LeRobotDataset


@dataclass(frozen=True)
class Conversion:
    """How the weights of a source become those of a bundle. Nothing has been written yet.

    Attributes:
        source: where they are.
        tensors: what is stored there.
        plan: how it fills the model.
        excluded: stored names that are left out because a pattern says so.
    """

    source: Source
    tensors: StoredTensors
    plan: LoadPlan
    excluded: tuple[str, ...]

    @property
    def copies_files(self) -> bool:
        """Whether the source's safetensors files are taken as they are."""
        renamed = any(name != stored for name, stored in self.plan.sources.items() if name not in self.plan.ties)
        return self.source.weights.format == "safetensors" and not renamed and not self.excluded


def plan_conversion(source: Source, model: ModelConfig, exclude: Sequence[str] = ()) -> Conversion:
    """Check the weights of `source` against an architecture.

    Args:
        source: the checkpoint.
        model: the architecture its weights must fill completely.
        exclude: patterns (``value_head.*``) of stored tensors that are no part of it, such as RL's value head.

    Raises:
        BundleError: the weights are damaged, or a bundle is not the one that was sealed.
        WeightsError: they do not fit the model, are unsafe to read, or a pattern matches nothing.
    """
    if source.kind == "bundle":
        read_bundle(source.path)
    tensors = read_tensors(source.weights)
    kept, excluded = _exclude(tensors.infos, exclude)
    return Conversion(source, tensors, plan_model(kept, model, str(source.weights.files[0])), excluded)


def fitting_presets(source: Source, exclude: Sequence[str] = ()) -> list[str]:
    """Names of the shipped presets whose architecture is that of the weights.

    Raises:
        BundleError, WeightsError: as `plan_conversion`, fit aside.
    """
    kept, _ = _exclude(read_tensors(source.weights).infos, exclude)
    found = []
    for preset in preset_names():
        try:
            plan_model(kept, load_config(preset).model, str(source.path))
        except WeightsError:
            continue
        found.append(preset)
    return found


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
        overwrite: replace an existing bundle.

    Raises:
        BundleError: the bundle exists, or an argument cannot be part of one.
        WeightsError: a weight is NaN or infinite, or tied weights differ.
        TokenizerError: the tokenizer of `config` cannot be read.
    """
    source = conversion.source
    description = checkpoint_config(config, dataset)
    description["norm_stats"] = dict(norm_stats_record)
    description["source"] = {
        "kind": source.kind,
        "format": source.weights.format,
        "files": {name_within(source.path, file): file_digest(file) for file in source.weights.files},
        "stripped": list(conversion.plan.stripped),
        "excluded": list(conversion.excluded),
    }
    return assemble_bundle(
        output,
        write_weights=lambda directory: _write_weights(conversion, directory),
        config=description,
        norm_stats=norm_stats,
        asset_id=asset_id,
        step=step,
        lineage={
            "config": config_digest(config),
            "dataset": None if dataset is None else dataset.digest,
            "norm_stats": bytes_digest(norm_stats),
            "parent": source.parent,
        },
        overwrite=overwrite,
    )


def _exclude(infos: Mapping[str, TensorInfo], patterns: Sequence[str]) -> tuple[dict[str, TensorInfo], tuple[str, ...]]:
    """The tensors that no pattern names, by stored name or by name without wrappers; and the names of the others."""
    excluded: set[str] = set()
    # Once for what may hide a wrapper from the majority vote (an optimiser's state), once for what is in a wrapper.
    for pattern in patterns:
        bare, _ = strip_wrappers(name for name in infos if name not in excluded)
        matching = {name for name in infos if fnmatchcase(name, pattern)}
        matching |= {stored for name, stored in bare.items() if fnmatchcase(name, pattern)}
        if not matching:
            cause = f"--exclude {pattern} matches no tensor of the checkpoint"
            raise WeightsError.of("exclude-matches-nothing", cause, "leave it out or correct it")
        excluded |= matching
    return {name: info for name, info in infos.items() if name not in excluded}, tuple(sorted(excluded))


def _write_weights(conversion: Conversion, directory: Path) -> Mapping[str, str]:
    """Write the safetensors files; returns name that is not stored -> name of the tensor it shares."""
    if conversion.copies_files:
        return _copy_files(conversion, directory)
    plan = conversion.plan
    tensors = conversion.tensors.load(set(plan.sources.values()))
    state_dict = {name: tensors[stored] for name, stored in plan.sources.items()}
    for name, other in TIED:
        _check_twins(name, state_dict[name], state_dict[other])
        state_dict[name] = state_dict[other]
    return save_weights(directory / WEIGHTS_FILE, state_dict)


def _copy_files(conversion: Conversion, directory: Path) -> Mapping[str, str]:
    """Copy one file, or shards and their index. The values are looked at one tensor at a time."""
    files, plan = conversion.source.weights.files, conversion.plan
    for name, stored in plan.sources.items():
        if name not in plan.ties:
            check_finite(name, conversion.tensors.load([stored])[stored])
    for name, other in TIED:
        if name not in plan.ties and other not in plan.ties:
            twins = conversion.tensors.load([name, other])
            _check_twins(name, twins[name], twins[other])
    if len(files) == 1:
        shutil.copyfile(files[0], directory / WEIGHTS_FILE)
    else:
        for file in (*files, files[0].parent / INDEX_FILE):
            shutil.copyfile(file, directory / file.name)
    return plan.ties


def _check_twins(name: str, one: torch.Tensor, other: torch.Tensor) -> None:
    """A checkpoint may store both names of a tied parameter, but then with one value."""
    if one is not other and not torch.equal(one, other):
        cause = f"the checkpoint stores {name} and the parameter it is tied to with different values"
        raise WeightsError.of("tied-weights-differ", cause, "this is the checkpoint of another model; use that one")
