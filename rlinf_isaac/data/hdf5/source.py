"""What a file of demonstrations says of itself: its rate, its environment, its instruction, its demonstrations."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlinf_isaac.data.hdf5.file import RESTORE, find, text_of
from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings, first_few
from rlinf_isaac.ground.errors import DatasetError
from rlinf_isaac.ground.reading import parse_json

if TYPE_CHECKING:
    import h5py

NAME = re.compile(r"[\w.-]{1,200}")
"""Pattern of the name of a demonstration."""
MOST_TEXT = 4_000_000
"""Longest ``env_args`` in characters."""
MOST_PROMPT = 10_000
"""Longest instruction in characters; no policy reads a hundredth of it."""
_NO_DATA = (
    "give a file of IsaacLab's record_demos or generate_dataset, or of robomimic: /data/demo_0, /data/demo_1, ..."
)


@dataclass(frozen=True)
class Demo:
    """One demonstration.

    Attributes:
        path: the file.
        name: of its group below ``/data``.
        frames: number of actions.
        success: what the file says of it; None if it says nothing.
        seed: of the environment's reset, if the file has it.
        prompt: the instruction, if the file has one for this demonstration.
    """

    path: Path
    name: str
    frames: int
    success: bool | None
    seed: int | None
    prompt: str | None

    def as_dict(self) -> dict[str, Any]:
        """For ``meta/provenance.json``."""
        return {"demo": self.name, "frames": self.frames, "success": self.success, "seed": self.seed}


@dataclass(frozen=True)
class SourceFile:
    """One file.

    Attributes:
        path: of it.
        env_args: the description of its environment, or empty.
        rates: where it says a control rate -> Hz.
        prompt: instruction of all its demonstrations, or None.
        demos: those that were asked for, in the order of their numbers.
        masks: names of its lists of demonstrations (robomimic's filter keys).
    """

    path: Path
    env_args: Mapping[str, Any]
    rates: Mapping[str, float]
    prompt: str | None
    demos: tuple[Demo, ...]
    masks: tuple[str, ...]


def read_source(found: FoldedFindings, file: h5py.File, action: str, mask: str | None) -> SourceFile:
    """What the open file says of itself. Must be called within `hdf5_errors`; notes what is wrong in `found`.

    Args:
        found: collects the problems.
        file: the open file.
        action: name of the array with the actions, whose length is that of the demonstration.
        mask: name of a list below ``/mask``; None takes all demonstrations.

    Raises:
        DatasetError: nothing can be read of it.
    """
    path = Path(file.filename)
    data = find(file, "/data")
    if data is None or not hasattr(data, "keys"):
        cause = f"{path} has no group /data; it has {first_few(sorted(file)) or 'nothing'}"
        raise DatasetError.of("hdf5-structure", cause, _NO_DATA)
    if (phase := text_of(data.attrs.get("obs/sample_phase"))) not in (None, "pre_step"):
        cause = f"{path}: its observations are those of the phase {phase}, after the action of their row"
        found.add("hdf5-phase", cause, "record observations before each action, as IsaacLab's default recorder does")
    names = sorted(data, key=_natural)
    masks = find(file, "/mask")
    known = tuple(sorted(masks)) if masks is not None and hasattr(masks, "keys") else ()
    if mask is not None:
        names = _masked(file, mask, known, names)
    if not names:
        raise DatasetError.of("hdf5-structure", f"{path} has no demonstration in /data", _NO_DATA)
    demos = (_read_demo(found, path, data, name, action) for name in names)
    env_args = _read_env_args(found, path, data)
    return SourceFile(
        path=path,
        env_args=env_args,
        rates=_rates(env_args, data),
        prompt=_words(env_args.get("lang")),
        demos=tuple(demo for demo in demos if demo is not None),
        masks=known,
    )


def check_rate(found: FoldedFindings, files: tuple[SourceFile, ...], given: int | None) -> tuple[int, str] | None:
    """The control rate in Hz and who says so; None where `found` now says why there is none."""
    said = {f"{file.path}: {where}": hz for file in files for where, hz in file.rates.items()}
    whole = {round(hz) for hz in said.values()}
    listed = "; ".join(f"{where} says {hz:g} Hz" for where, hz in said.items())
    if given is not None:
        if any(abs(hz - given) > 1e-3 * given for hz in said.values()):
            cause = f"--fps is {given}, but {listed}; {given} Hz is recorded as the rate"
            found.add("hdf5-rate", cause, "leave --fps out, unless the file is wrong", "warning")
        return given, "--fps"
    if not said:
        where = first_few([str(file.path) for file in files])
        cause = f"{where} says no control rate: neither control_freq nor dt and decimation"
        found.add("hdf5-no-rate", cause, "pass --fps with the rate at which the actions were taken, in Hz")
        return None
    if len(whole) > 1 or any(abs(hz - round(hz)) > 1e-3 * hz for hz in said.values()) or whole == {0}:
        cause = f"{listed}, which is not one whole number of frames per second"
        found.add("hdf5-rates", cause, "pass --fps with the rate, or import files of one rate at a time")
        return None
    return whole.pop(), next(iter(said)).rpartition(": ")[2]


def _natural(name: str) -> tuple[str, int, str]:
    """Sorts demo_2 before demo_10."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :][:18] or -1), name


def _masked(file: h5py.File, mask: str, known: tuple[str, ...], names: list[str]) -> list[str]:
    listed = find(file, f"/mask/{mask}") if mask in known else None
    if listed is None or not hasattr(listed, "dtype"):
        cause = f"{file.filename} has no list /mask/{mask}; it has {first_few(known) or 'none'}"
        raise DatasetError.of("hdf5-mask", cause, "name one of them, or leave --mask out")
    if listed.dtype.kind not in "SO" or listed.ndim != 1 or listed.nbytes > MOST_TEXT:
        cause = f"{file.filename}: /mask/{mask} is {listed.dtype} {listed.shape}, not a list of demonstrations"
        raise DatasetError.of("hdf5-mask", cause, RESTORE)
    chosen = {text_of(entry) or "" for entry in listed[()]}
    if missing := sorted(chosen - set(names)):
        cause = f"{file.filename}: /mask/{mask} lists {first_few(missing)}, which /data does not have"
        raise DatasetError.of("hdf5-mask", cause, RESTORE)
    return [name for name in names if name in chosen]


def _read_demo(found: FoldedFindings, path: Path, data: h5py.Group, name: str, action: str) -> Demo | None:
    where = f"{path}: /data/{name[:200]}"
    if not NAME.fullmatch(name):
        found.add("hdf5-name", f"{where} has a strange name", "rename it to demo_N")
        return None
    try:
        demo = find(data, name)
        if demo is None or not hasattr(demo, "keys"):
            found.add("hdf5-structure", f"{where} is no group", _NO_DATA)
            return None
        actions = find(demo, action)
    except DatasetError as error:
        found.extend(error.problems)
        return None
    if actions is None or not hasattr(actions, "shape"):
        has = first_few(sorted(demo)) or "nothing"
        below = f", and below {action} {first_few(sorted(actions))}" if actions is not None else ""
        cure = "name the array with --action-key, for example --action-key processed_actions"
        found.add("hdf5-no-action", f"{where} has no array {action}; it has {has}{below}", cure)
        return None
    frames = actions.shape[0] if actions.shape else 0
    samples = _number(demo.attrs.get("num_samples"))
    if frames == 0:
        cure = "choose others with --mask, or delete it from a copy of the file"
        found.add("hdf5-empty", f"{where}/{action} has no frame", cure)
        return None
    if samples is not None and samples != frames:
        found.add("hdf5-length", f"{where} has {frames} {action}, and says it has {samples} samples", RESTORE)
    success = _number(demo.attrs.get("success"))
    return Demo(
        path=path,
        name=name,
        frames=frames,
        success=None if success is None else bool(success),
        seed=_number(demo.attrs.get("seed")),
        prompt=_words(_json(demo.attrs.get("ep_meta")).get("lang")),
    )


def _read_env_args(found: FoldedFindings, path: Path, data: h5py.Group) -> Mapping[str, Any]:
    """``env_args``, a JSON object in an attribute; empty if there is none, or if it is not readable."""
    value = data.attrs.get("env_args")
    try:
        text = text_of(value)
        parsed = {} if value is None else parse_json(text[:MOST_TEXT]) if text is not None else None
        if not isinstance(parsed, dict):
            raise ValueError("it is no JSON object")
        json.dumps(parsed, allow_nan=False)  # 1e999 is JSON, and becomes a float that is none
    except ValueError as error:
        cause = f"{path}: the attribute env_args of /data is not readable: {str(error)[:200]}"
        found.add("hdf5-env-args", cause, "nothing to do, if rate and prompt are given: they may be in it", "warning")
        return {}
    return parsed


def _rates(env_args: Mapping[str, Any], data: h5py.Group) -> dict[str, float]:
    """Where a file says its control rate -> Hz.

    robosuite has ``control_freq``; IsaacLab the physics step ``dt`` in seconds and ``decimation``, the number of
    physics steps of an action; the newer schema of IsaacLab Mimic an attribute ``fps``.
    """
    kwargs, sim = env_args.get("env_kwargs"), env_args.get("sim_args")
    rates: dict[str, Any] = {}
    if isinstance(kwargs, dict):
        rates["control_freq of env_args"] = kwargs.get("control_freq")
    if isinstance(sim, dict):
        dt, decimation = _positive(sim.get("dt")), _positive(sim.get("decimation"))
        rates["dt and decimation of env_args"] = 1 / (dt * decimation) if dt and decimation else None
    rates["fps of /data"] = data.attrs.get("fps")
    return {where: hz for where, value in rates.items() if (hz := _positive(value)) and hz < 1e6}


def _positive(value: Any) -> float | None:
    """A number above 0 of JSON or of an attribute; None for anything else."""
    if isinstance(value, str | bytes) or getattr(value, "shape", ()) != ():
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def _number(value: Any) -> int | None:
    """A whole number or truth value of an attribute, also one in an array of one; None for anything else."""
    if getattr(value, "shape", ()) == (1,):
        value = value[0]
    number = _positive(value)
    if number is not None:
        return int(number) if number == int(number) else None
    zero = getattr(value, "shape", None) == () or isinstance(value, int | float)
    return 0 if zero and not isinstance(value, str | bytes) and value == 0 else None


def _json(value: Any) -> Mapping[str, Any]:
    """A JSON object in an attribute, or an empty one."""
    try:
        parsed = parse_json((text_of(value) or "{}")[:MOST_TEXT], finite=False)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def _words(value: Any) -> str | None:
    return value.strip() if isinstance(value, str) and 0 < len(value.strip()) <= MOST_PROMPT else None
