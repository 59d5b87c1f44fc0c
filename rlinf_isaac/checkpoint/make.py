"""A bundle out of a checkpoint that OpenPI, RLinf or anyone else wrote. Needs torch.

Before a byte is written, every name and shape is checked against the architecture. Safetensors files whose names need
no change are copied byte for byte, shards as shards; anything else becomes one ``model.safetensors``.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from rlinf_isaac.checkpoint.bundle import Bundle, assemble_bundle, read_bundle
from rlinf_isaac.checkpoint.convert.cast import torch_dtype
from rlinf_isaac.checkpoint.convert.plan import Options, Output, exempt_from_cast, output_dtype, plan_files
from rlinf_isaac.checkpoint.convert.read import Stored, read_stored
from rlinf_isaac.checkpoint.convert.select import WHOLE, choose, find_state_dict, rename
from rlinf_isaac.checkpoint.convert.source import Buffer, SourceFiles
from rlinf_isaac.checkpoint.convert.tensors import SplitTensor, StoredTensor, Unstorable
from rlinf_isaac.checkpoint.convert.write import write_files
from rlinf_isaac.checkpoint.coverage import LoadPlan, plan_model, strip_wrappers
from rlinf_isaac.checkpoint.description import checkpoint_config, config_digest
from rlinf_isaac.checkpoint.header import INDEX_FILE, WEIGHTS_FILE, TensorInfo
from rlinf_isaac.checkpoint.sources import Source, name_within
from rlinf_isaac.checkpoint.weights import check_finite
from rlinf_isaac.config import load_config, preset_names
from rlinf_isaac.config.schema import JobConfig, ModelConfig
from rlinf_isaac.digest import bytes_digest, file_digest
from rlinf_isaac.errors import Problem, WeightsError
from rlinf_isaac.pi0.layout import TIED

if TYPE_CHECKING:
    from rlinf_isaac.data.lerobot_reader import LeRobotDataset


AnyDense = StoredTensor | SplitTensor

AS_STORED = Options(state_dict_key=WHOLE)
"""A bundle holds what the checkpoint holds, under the model's own names; everything in the file has to fit."""


@dataclass(frozen=True)
class Conversion:
    """How the weights of a source become those of a bundle. Nothing has been written yet.

    Attributes:
        source: where they are.
        stored: what is stored there.
        plan: how it fills the model.
        outputs: the tensors to write, in the order of the model's parameters.
        twins: name of a tied parameter that is stored twice, and the two tensors, whose values must be the same.
        stripped: wrappers and prefixes removed from names.
        excluded: stored names that are left out because a pattern says so.
        options: what else was asked for.
    """

    source: Source
    stored: Stored
    plan: LoadPlan
    outputs: tuple[Output, ...]
    twins: tuple[tuple[str, AnyDense, AnyDense], ...]
    stripped: tuple[str, ...]
    excluded: tuple[str, ...]
    options: Options

    @property
    def copies_files(self) -> bool:
        """Whether the source's safetensors files are taken as they are."""
        renamed = any(name != stored for name, stored in self.plan.sources.items() if name not in self.plan.ties)
        changed = renamed or self.excluded or any(output.is_cast for output in self.outputs)
        return self.source.weights.format == "safetensors" and not changed and self.options.max_shard_size is None


def plan_conversion(source: Source, model: ModelConfig, options: Options = AS_STORED) -> Conversion:
    """Check the weights of `source` against an architecture.

    Args:
        source: the checkpoint.
        model: the architecture its weights must fill completely.
        options: what to do beyond copying; ``exclude`` has patterns (``value_head.*``) of stored tensors that are no
            part of the model, such as RL's value head.

    Raises:
        BundleError: the weights are damaged, or a bundle is not the one that was sealed.
        WeightsError: they do not fit the model, are unsafe to read, or a pattern matches nothing.
    """
    if source.kind == "bundle":
        read_bundle(source.path)
    stored = read_stored(source.weights)
    chosen = _select(stored, options)
    plan = plan_model(chosen.infos, model, str(source.weights.files[0]))
    exempt, unmatched = exempt_from_cast(plan.sources, options.keep_dtype)
    if unmatched:
        raise WeightsError(unmatched)
    # Tied parameters become one and the same view, under the name that sorts first.
    owner = {max(pair): min(pair) for pair in TIED}
    outputs, twins = [], []
    for name, own in plan.sources.items():
        origin = plan.sources[owner.get(name, name)]
        tensor = chosen.tensors[origin]
        if tensor != chosen.tensors[own]:
            twins.append((name, tensor, chosen.tensors[own]))
        dtype = output_dtype(options, tensor.dtype, exempt=owner.get(name, name) in exempt)
        outputs.append(Output(name, chosen.names[origin], dtype, tensor))
    stripped = (*chosen.stripped, *plan.stripped)
    return Conversion(source, stored, plan, tuple(outputs), tuple(twins), stripped, chosen.excluded, options)


def fitting_presets(source: Source, options: Options = AS_STORED) -> list[str]:
    """Names of the shipped presets whose architecture is that of the weights; of those with the same, the first.

    Raises:
        BundleError, WeightsError: as `plan_conversion`, fit aside.
    """
    infos = _select(read_stored(source.weights), options).infos
    found: dict[str, ModelConfig] = {}
    for preset in preset_names():
        model = load_config(preset).model
        try:
            plan_model(infos, model, str(source.path))
        except WeightsError:
            continue
        if model not in found.values():
            found[preset] = model
    return list(found)


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
        "stripped": list(conversion.stripped),
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


class _Chosen(NamedTuple):
    """Tensors by their names in the state dict, the names they have in the file, and what was removed."""

    tensors: dict[str, AnyDense]
    names: dict[str, str]
    stripped: tuple[str, ...]
    excluded: tuple[str, ...]

    @property
    def infos(self) -> dict[str, TensorInfo]:
        return {name: tensor.info for name, tensor in self.tensors.items()}


def _select(stored: Stored, options: Options) -> _Chosen:
    """The tensors of the state dict that no pattern leaves out; wrappers are left to `plan_model`."""
    # A distributed checkpoint has the optimiser in it, twice as large as the model and never asked for.
    find = stored.weights.format == "dcp" and options.state_dict_key == WHOLE
    state_dict = find_state_dict(stored.tensors, None if find else options.state_dict_key)
    found = {
        ".".join(keys[len(state_dict) :]): tensor
        for keys, tensor in stored.tensors.items()
        if keys[: len(state_dict)] == state_dict
    }
    stripped: tuple[str, ...] = ()
    names = {name: name for name in found}
    problems: list[Problem] = []
    if options.strip_prefix:
        names, stripped, problems = rename(found, options.strip_prefix)
    excluded: set[str] = set()
    # Once for what may hide a wrapper from the majority vote (an optimiser's state), once for what is in a wrapper.
    for pattern in options.exclude:
        bare, _ = strip_wrappers(name for name in names if name not in excluded)
        kept, unmatched = choose(bare, exclude=[pattern])
        excluded |= set(bare.values()) - {bare[key] for key in kept}
        problems += unmatched
    if options.include:
        bare, _ = strip_wrappers(name for name in names if name not in excluded)
        kept, unmatched = choose(bare, include=options.include)
        excluded |= set(bare.values()) - {bare[key] for key in kept}
        problems += unmatched
    tensors: dict[str, AnyDense] = {}
    for name, own in names.items():
        tensor = found[own]
        if name in excluded:
            continue
        if isinstance(tensor, Unstorable):
            cause = f"{stored.weights.files[0]}: {own} is {tensor.kind}"
            problems.append(Problem("not-a-dense-tensor", cause, f"{tensor.cure}; or leave it out with --exclude"))
        else:
            tensors[name] = tensor
    if problems:
        raise WeightsError(problems)
    stored_names = {name: ".".join((*state_dict, own)) for name, own in names.items()}
    return _Chosen(tensors, stored_names, stripped, tuple(sorted(stored_names[name] for name in excluded)))


def _write_weights(conversion: Conversion, directory: Path) -> Mapping[str, str]:
    """Write the safetensors files; returns name that is not stored -> name of the tensor it shares."""
    _check_twins(conversion)
    if conversion.copies_files:
        return _copy_files(conversion, directory)
    # The manifest says what is tied. With a single entry in its metadata a file is the one that save_file writes.
    files, ties, _ = plan_files(conversion.outputs, conversion.options.max_shard_size, note_ties=False)
    write_files(files, directory, checked=conversion.stored.storages, hashes=False, inspect=_check_finite)
    return ties


def _copy_files(conversion: Conversion, directory: Path) -> Mapping[str, str]:
    """Copy one file, or shards and their index. The values are looked at one tensor at a time."""
    files = conversion.source.weights.files
    with SourceFiles() as source:
        for output in {output.stored: output for output in conversion.outputs}.values():
            for piece in source.pieces(output.source):
                _check_finite(output, piece)
    if len(files) == 1:
        shutil.copyfile(files[0], directory / WEIGHTS_FILE)
    else:
        for file in (*files, files[0].parent / INDEX_FILE):
            shutil.copyfile(file, directory / file.name)
    return conversion.plan.ties


def _check_finite(output: Output, piece: Buffer) -> None:
    check_finite(output.name, torch.frombuffer(piece, dtype=torch_dtype(output.dtype)))


def _check_twins(conversion: Conversion) -> None:
    """A checkpoint may store both names of a tied parameter, but then with one value."""
    with SourceFiles() as source:
        for name, *twins in conversion.twins:
            if len({_fingerprint(source, twin) for twin in twins}) > 1:
                cause = f"the checkpoint stores {name} and the parameter it is tied to with different values"
                cure = "this is the checkpoint of another model; use that one"
                raise WeightsError.of("tied-weights-differ", cause, cure)


def _fingerprint(source: SourceFiles, tensor: StoredTensor | SplitTensor) -> tuple[str, str]:
    digest = hashlib.sha256()
    for piece in source.pieces(tensor):
        digest.update(piece)
    return tensor.dtype, digest.hexdigest()
