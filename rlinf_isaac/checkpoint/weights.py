"""Loads model parameters from safetensors files, all or none, and saves them. Needs torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from rlinf_isaac.checkpoint.bundle import Bundle, read_bundle
from rlinf_isaac.checkpoint.coverage import LoadPlan, is_floating_point, plan_load
from rlinf_isaac.checkpoint.header import read_header, weight_files
from rlinf_isaac.checkpoint.manifest import MANIFEST_FILE
from rlinf_isaac.ground.errors import WeightsError
from rlinf_isaac.pi0.layout import UNREAD


def load_weights(source: Bundle | str | Path, model: torch.nn.Module, *, optional: tuple[str, ...] = ()) -> None:
    """Copy a checkpoint into `model` in place, every parameter or none. The model keeps its dtype and device.

    Args:
        source: a bundle or its directory, which is verified first; or weights without a bundle, as OpenPI publishes
            them: a directory with ``model.safetensors`` or shards, or one safetensors file.
        model: a model with the names of OpenPI's state dict. Tied parameters stay tied; if the bundle recorded a tie
            that the model has lost, they are tied again.
        optional: prefixes of stored names that the model need not have (`layout.OPTIONAL_PREFIXES`).

    Raises:
        BundleError: the bundle's files differ from its manifest.
        WeightsError: names or shapes do not match one to one; the model is then unchanged.
    """
    files, recorded_ties = _open(source)
    headers = {file: read_header(file) for file in files}
    stored = {name: info for header in headers.values() for name, info in header.items()}
    targets = model.state_dict(keep_vars=True)
    plan = plan_load(
        stored,
        {name: tuple(tensor.shape) for name, tensor in targets.items()},
        ties=[*_model_ties(targets), *recorded_ties.items()],
        optional=optional,
        unread=UNREAD,
        source=str(source.path if isinstance(source, Bundle) else source),
    )
    for name, tensor in targets.items():
        if tensor.is_meta:
            cause = f"{name} is on the meta device"
            raise WeightsError.of("meta-model", cause, "call model.to_empty(device=...) before loading")
        if name in plan.unread:
            continue
        dtype = stored[plan.sources[name]].dtype
        if tensor.is_floating_point() != is_floating_point(dtype):
            cause = f"{name} is {tensor.dtype} in the model, {dtype} in {source}"
            raise WeightsError.of("weights-dtype", cause, "convert the checkpoint to a floating-point type again")
    _check_twins(headers, plan, targets)
    _copy(headers, plan, targets)
    for name, other in plan.ties.items():
        _tie(model, name, other)
    with torch.no_grad():
        for name in plan.unread:
            targets[name].zero_()


def read_weights(bundle: Bundle, names: Iterable[str]) -> dict[str, torch.Tensor]:
    """Tensors of a bundle by name, as they are stored; names that it lacks are left out. Nothing is verified."""
    wanted: dict[str, list[str]] = {}
    for name in names:
        wanted.setdefault(bundle.manifest.tied.get(name, name), []).append(name)
    found = {}
    for file in weight_files(bundle.path):
        with safe_open(file, framework="pt") as handle:
            for stored in wanted.keys() & set(handle.keys()):
                value = handle.get_tensor(stored)
                found.update(dict.fromkeys(wanted[stored], value))
    return found


def save_weights(path: str | Path, state_dict: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Write a state dict as one safetensors file; equal input gives equal bytes.

    Tensors that share all of their memory (tied embeddings) are stored once, under the name that sorts first. For pi0
    this is ``...paligemma.lm_head.weight``, the name that OpenPI uses too.

    Returns:
        Name that is not stored -> name under which its tensor is stored.

    Raises:
        WeightsError: the state dict is empty, or a tensor has no storage of its own (meta, sparse, distributed) or
            holds NaN or infinity.
    """
    tensors, ties = _untie(state_dict)
    if not tensors:
        cause = f"{path}: the state dict holds no tensors"
        raise WeightsError.of("empty-weights", cause, "pass the state dict of a model")
    for name, tensor in tensors.items():
        check_finite(name, tensor)
    # With a single metadata entry the header's bytes are reproducible. transformers requires the value "pt".
    save_file(tensors, path, metadata={"format": "pt"})
    shapes = {name: info.shape for name, info in read_header(path).items()}
    if shapes != {name: tuple(tensor.shape) for name, tensor in tensors.items()}:
        cause = f"{path}: the file does not hold the tensors that were written"
        raise WeightsError.of("weights-not-written", cause, "check the disk and write the checkpoint again")
    return ties


def _untie(state_dict: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Contiguous CPU tensors without shared memory, and the ties: name left out -> name with the same memory."""
    tensors: dict[str, torch.Tensor] = {}
    ties: dict[str, str] = {}
    owners: dict[tuple, str] = {}
    storages: set[int] = set()
    for name in sorted(state_dict):
        tensor = state_dict[name]
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter) or tensor.is_meta or tensor.layout != torch.strided:
            cause = f"{name} is not a plain dense tensor but {torch.typename(tensor)}"
            raise WeightsError.of("not-a-dense-tensor", cause, "gather and materialise it first")
        memory = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() > 0 and memory in owners:
            ties[name] = owners[memory]
            continue
        owners[memory] = name
        tensor = tensor.detach().cpu().contiguous()
        # Different views of one storage (such as a fused projection) are cloned: safetensors refuses shared storage.
        if tensor.untyped_storage().data_ptr() in storages:
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        tensors[name] = tensor
    return tensors, ties


def check_finite(name: str, tensor: torch.Tensor) -> None:
    """Raise WeightsError if a tensor holds NaN or infinity."""
    if not _is_finite(tensor):
        cause = f"{name} holds NaN or infinity: this checkpoint would be useless and is not written"
        raise WeightsError.of("nonfinite-weights", cause, "take the last checkpoint from before training diverged")


def _is_finite(tensor: torch.Tensor) -> bool:
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    # torch has no reductions for 8-bit floats.
    extremes = torch.aminmax(tensor.float() if tensor.element_size() == 1 else tensor)
    # aminmax propagates NaN, takes no memory, and is ten times as fast as isfinite().all().
    return bool(torch.isfinite(extremes.min) and torch.isfinite(extremes.max))


def _open(source: Bundle | str | Path) -> tuple[list[Path], Mapping[str, str]]:
    """The weight files of `source` and the ties that its manifest records. A bundle is verified."""
    if isinstance(source, Bundle):
        bundle = source if source.verified else read_bundle(source.path)
        return weight_files(bundle.path), bundle.manifest.tied
    path = Path(source)
    if (path / MANIFEST_FILE).exists():
        return _open(read_bundle(path))
    return ([path] if path.is_file() else weight_files(path)), {}


def _model_ties(targets: Mapping[str, torch.Tensor]) -> list[tuple[str, str]]:
    """Pairs of names that refer to the same parameter object."""
    first: dict[int, str] = {}
    return [(name, first[id(tensor)]) for name, tensor in targets.items() if first.setdefault(id(tensor), name) != name]


def _check_twins(headers: Mapping[Path, Mapping], plan: LoadPlan, targets: Mapping[str, torch.Tensor]) -> None:
    """Raise WeightsError if a checkpoint stores both names of a tied parameter with different values."""
    files = {stored: file for file, header in headers.items() for stored in header}
    stored_as: dict[int, str] = {}
    for name, stored in plan.sources.items():
        twin = stored_as.setdefault(id(targets[name]), stored)
        if twin != stored and not torch.equal(_read(files[twin], twin), _read(files[stored], stored)):
            cause = f"{twin} and {stored} differ in {files[stored]}, but the model ties them"
            raise WeightsError.of("tied-weights-differ", cause, "this is the checkpoint of another model; use that one")


@torch.no_grad()
def _copy(headers: Mapping[Path, Mapping], plan: LoadPlan, targets: Mapping[str, torch.Tensor]) -> None:
    """Copy tensor by tensor, so that only one tensor is in memory besides the model."""
    users: dict[str, list[str]] = {}
    for name, stored in plan.sources.items():
        users.setdefault(stored, []).append(name)
    for file, header in headers.items():
        with safe_open(file, framework="pt") as handle:
            for stored in header:
                value = handle.get_tensor(stored)
                for name in users.get(stored, ()):
                    targets[name].copy_(value)


def _read(file: Path, name: str) -> torch.Tensor:
    with safe_open(file, framework="pt") as handle:
        return handle.get_tensor(name)


def _tie(model: torch.nn.Module, name: str, other: str) -> None:
    """Make parameter `name` the same object as parameter `other`."""
    module_name, _, attribute = name.rpartition(".")
    module = model.get_submodule(module_name)
    if attribute in module._parameters:
        setattr(module, attribute, model.get_parameter(other))
