"""Plans how the weights of a foreign checkpoint become those of a bundle. Nothing is written, and torch is not needed.

Every name and shape is checked against the architecture and against the checkpoint's own files. Tensors of RL's critic
and exploration noise (`layout.OPTIONAL_PREFIXES`) are left out, and parameters that nothing reads become zeros.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from rlinf_isaac.checkpoint.bundle import read_bundle
from rlinf_isaac.checkpoint.convert import openpi_rlinf
from rlinf_isaac.checkpoint.convert.plan import Options, Output, output_dtype
from rlinf_isaac.checkpoint.convert.read import Stored, read_stored
from rlinf_isaac.checkpoint.convert.select import WHOLE, choose, exempt_from_cast, find_state_dict, rename
from rlinf_isaac.checkpoint.convert.tensors import AnyDense, Unstorable, ZeroTensor
from rlinf_isaac.checkpoint.coverage import LoadPlan, plan_model, strip_wrappers
from rlinf_isaac.checkpoint.description import config_digest
from rlinf_isaac.checkpoint.foreign.said import contradictions
from rlinf_isaac.checkpoint.foreign.sources import Located
from rlinf_isaac.checkpoint.header import TensorInfo
from rlinf_isaac.config import load_config, preset_names
from rlinf_isaac.config.schema import JobConfig, ModelConfig
from rlinf_isaac.ground.digest import bytes_digest
from rlinf_isaac.ground.errors import BundleError, Problem, WeightsError
from rlinf_isaac.pi0.layout import OPTIONAL_PREFIXES, TIED, state_dict_shapes

AS_STORED = Options(state_dict_key=WHOLE)
"""The options of a bundle: the stored values under the model's names; every tensor in the file has to fit."""


@dataclass(frozen=True)
class Conversion:
    """How the weights of a source become those of a bundle. Nothing has been written yet.

    Attributes:
        source: the checkpoint.
        stored: its stored tensors.
        plan: how they fill the model.
        outputs: the tensors to write, in the order of the model's parameters.
        twins: name of each tied parameter that is stored twice, and the two tensors, whose values must be equal.
        stripped: wrappers and prefixes removed from names.
        excluded: stored names that are left out because a pattern matches them, because they belong to RL's critic or
            exploration noise (`layout.OPTIONAL_PREFIXES`), or because lerobot's model has them but never reads them.
        options: the other options of the conversion.
        layout: the layout of the stored tensors, if it is not OpenPI's (`convert.openpi_rlinf`).
    """

    source: Located
    stored: Stored
    plan: LoadPlan
    outputs: tuple[Output, ...]
    twins: tuple[tuple[str, AnyDense, AnyDense], ...]
    stripped: tuple[str, ...]
    excluded: tuple[str, ...]
    options: Options
    layout: str = ""

    @property
    def copies_files(self) -> bool:
        """Whether the source's safetensors files are copied unchanged."""
        renamed = any(name != stored for name, stored in self.plan.sources.items() if name not in self.plan.ties)
        changed = (
            renamed
            or self.layout
            or self.excluded
            or self.plan.unread
            or any(output.is_cast for output in self.outputs)
        )
        weights = self.source.weights
        whole = weights.format == "safetensors" and not weights.lacks_index
        return whole and not changed and self.options.max_shard_size is None


def plan_conversion(
    source: Located,
    model: ModelConfig,
    options: Options = AS_STORED,
    *,
    left_out: Collection[str] = (),
    verify: bool = True,
) -> Conversion:
    """Check the weights of `source` against an architecture.

    Args:
        source: the checkpoint.
        model: the architecture its weights must fill completely.
        options: options of the conversion. ``exclude`` has patterns (``value_head.*``) of stored tensors that are not
            part of the model, such as RL's value head.
        left_out: parameters of the model that are not taken from the checkpoint.
        verify: hash the weights of a bundle (about 1.5 GB/s); without it only their headers are read.

    Raises:
        BundleError: the weights are damaged, or a bundle was changed after it was sealed.
        WeightsError: they do not fit the model, are unsafe to read, or a pattern matches nothing.
    """
    if source.kind == "bundle":
        read_bundle(source.path, verify=verify)
    stored = read_stored(source.weights)
    chosen = _without_untied_head(source, _select(stored, options))
    _check_said(source, chosen)
    plan = plan_model(chosen.infos, model, str(source.weights.files[0]), left_out=left_out)
    exempt, unmatched = exempt_from_cast(plan.sources, options.keep_dtype)
    if unmatched:
        raise WeightsError(unmatched)
    # Tied parameters are stored once, under the name that sorts first.
    owner = {max(pair): min(pair) for pair in TIED}
    outputs, twins = [], []
    for name, own in plan.sources.items():
        origin = plan.sources[owner.get(name, name)]
        tensor = chosen.tensors[origin]
        if tensor != chosen.tensors[own]:
            twins.append((name, tensor, chosen.tensors[own]))
        dtype = output_dtype(options, tensor.dtype, exempt=owner.get(name, name) in exempt)
        outputs.append(Output(name, chosen.names[origin], dtype, tensor))
    # Unread parameters are written as zeros, for loaders that require every name of OpenPI's model.
    for name in plan.unread:
        dtype = next((output.dtype for output in outputs if output.name == TIED[0][1]), "F32")
        outputs.append(Output(name, name, dtype, ZeroTensor(dtype, state_dict_shapes(model)[name])))
    stripped = (*chosen.stripped, *plan.stripped)
    return Conversion(
        source, stored, plan, tuple(outputs), tuple(twins), stripped, chosen.excluded, options, chosen.layout
    )


def may_be_made(output: str | Path, config: JobConfig, norm_stats: bytes) -> bool:
    """Whether `output` holds a bundle of the same job and norm stats. Its weights are not hashed."""
    try:
        lineage = read_bundle(output, verify=False).lineage
    except BundleError:
        return False
    return (lineage.get("config"), lineage["norm_stats"]) == (config_digest(config), bytes_digest(norm_stats))


def fitting_presets(source: Located, options: Options = AS_STORED) -> list[str]:
    """Names of the shipped presets whose architecture fits the weights; of presets with equal shapes, only the first.

    Raises:
        BundleError, WeightsError: as `plan_conversion`, except that weights may fit no preset.
    """
    names = preset_names()
    models = [load_config(name).model for name in names]
    fitting: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, model, fits in zip(names, models, fitting_architecture(source, models, options), strict=True):
        if fits and (shapes := state_dict_shapes(model)) not in fitting.values():
            fitting[name] = shapes
    return list(fitting)


def fitting_architecture(source: Located, models: Iterable[ModelConfig], options: Options = AS_STORED) -> list[bool]:
    """For each architecture, whether the weights have its names and shapes.

    Raises:
        BundleError, WeightsError: as `plan_conversion`, except that weights may fit no architecture.
    """
    chosen = _select(read_stored(source.weights), options)
    _check_said(source, chosen)
    return [_fits(chosen.infos, model, str(source.path)) for model in models]


def _fits(infos: Mapping[str, TensorInfo], model: ModelConfig, source: str) -> bool:
    try:
        plan_model(infos, model, source)
    except WeightsError:
        return False
    return True


class _Chosen(NamedTuple):
    """The selected tensors by their names in the state dict, and `names`: name in the state dict -> name in the file.

    The other fields are those of `Conversion`.
    """

    tensors: dict[str, AnyDense]
    names: dict[str, str]
    stripped: tuple[str, ...]
    excluded: tuple[str, ...]
    layout: str = ""

    @property
    def infos(self) -> dict[str, TensorInfo]:
        return {name: tensor.info for name, tensor in self.tensors.items()}


def _select(stored: Stored, options: Options) -> _Chosen:
    """The tensors of the state dict that no pattern excludes. Wrappers are removed later, by `plan_model`."""
    # A distributed checkpoint also has the state of the optimiser, so its state dict of the model is searched for.
    find = stored.weights.format == "dcp" and options.state_dict_key == WHOLE
    state_dict = find_state_dict(stored.tensors, None if find else options.state_dict_key)
    candidates = {
        ".".join(keys[len(state_dict) :]): tensor
        for keys, tensor in stored.tensors.items()
        if keys[: len(state_dict)] == state_dict
    }
    stripped: tuple[str, ...] = ()
    names = {name: name for name in candidates}
    problems: list[Problem] = []
    if options.strip_prefix:
        names, stripped, problems = rename(candidates, options.strip_prefix)
    excluded: set[str] = set()
    # Wrappers are stripped again for every pattern: excluded names, such as an optimiser's state, could otherwise keep
    # a prefix from being the one of most names.
    for pattern in options.exclude:
        bare, _ = strip_wrappers(name for name in names if name not in excluded)
        selected, unmatched = choose(bare, exclude=[pattern])
        excluded |= set(bare.values()) - {bare[key] for key in selected}
        problems += unmatched
    if options.include:
        bare, _ = strip_wrappers(name for name in names if name not in excluded)
        selected, unmatched = choose(bare, include=options.include)
        excluded |= set(bare.values()) - {bare[key] for key in selected}
        problems += unmatched
    bare, _ = strip_wrappers(name for name in names if name not in excluded)
    excluded |= {stored for name, stored in bare.items() if name.startswith(OPTIONAL_PREFIXES)}
    tensors: dict[str, AnyDense] = {}
    for name, own in names.items():
        tensor = candidates[own]
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
    left_out = tuple(sorted(stored_names[name] for name in excluded))
    return _renamed(_Chosen(tensors, stored_names, stripped, left_out, stored.layout), str(stored.weights.files[0]))


def _renamed(chosen: _Chosen, source: str) -> _Chosen:
    """The tensors under OpenPI's names, if they have the names of RLinf's own layout."""
    bare, stripped = strip_wrappers(chosen.tensors)
    if not openpi_rlinf.is_openpi_rlinf(bare):
        return chosen
    views = openpi_rlinf.to_openpi({name: chosen.tensors[own] for name, own in bare.items()}, source)
    tensors = {name: view for name, (_, view) in views.items()}
    names = {name: chosen.names[bare[stored]] for name, (stored, _) in views.items()}
    return _Chosen(tensors, names, (*chosen.stripped, *stripped), chosen.excluded, openpi_rlinf.NAME)


def _without_untied_head(source: Located, chosen: _Chosen) -> _Chosen:
    """Leaves out the VLM's head of lerobot's weights if the token embedding is stored too.

    lerobot 0.5 and later replace the language model after its head was tied to it (``policies/pi_gemma.py``). Head and
    embedding are then separate parameters, and the model reads only the embedding: training changes the embedding,
    while the head keeps its initial value. lerobot's own loader uses the stored embedding too.
    """
    bare, _ = strip_wrappers(chosen.tensors)
    embedding, head = TIED[0]
    if source.kind != "lerobot" or not {embedding, head} <= bare.keys():
        return chosen
    left_out = bare[head]
    tensors = {name: tensor for name, tensor in chosen.tensors.items() if name != left_out}
    excluded = tuple(sorted((*chosen.excluded, chosen.names[left_out])))
    return chosen._replace(tensors=tensors, excluded=excluded)


def _check_said(source: Located, chosen: _Chosen) -> None:
    """Raise WeightsError if shapes contradict the checkpoint's files."""
    bare, _ = strip_wrappers(chosen.infos)
    infos = {name: chosen.infos[stored] for name, stored in bare.items()}
    if problems := contradictions(source.said, infos, str(source.weights.files[0])):
        raise WeightsError(problems)
