"""Reads a `Task` from YAML, or from the dict that `Task.as_dict` made of one; every mistake at once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from rlinf_isaac.ground.errors import InvalidJob, Problem
from rlinf_isaac.tasks.adapters import ADAPTERS, find_adapter
from rlinf_isaac.tasks.paths import wrong_path
from rlinf_isaac.tasks.task import (
    ISAACLAB,
    KINDS,
    NAME,
    OF_DATASET,
    SLOTS,
    Action,
    Camera,
    Environment,
    Expert,
    Task,
    Vector,
)
from rlinf_isaac.tasks.terms import TERM, wrong_term

CURE = "write it as docs/tasks.md says; `rlinf-isaac task init --dataset DATASET` begins one"
NUMBER = (int, float)
_MISSING = object()


def read_task(path: Path) -> Task:
    """The task of a YAML file.

    Raises:
        InvalidJob: it cannot be read, or something in it is wrong; all of it is named.
    """
    import yaml

    from rlinf_isaac.ground.yaml_text import read_yaml_text

    try:
        values = yaml.safe_load(read_yaml_text(path))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InvalidJob.of("bad-task", f"{path} cannot be read: {' '.join(str(error).split())[:300]}", CURE) from error
    return from_dict(values, str(path), path.parent)


def from_dict(values: Any, origin: str, directory: Path | None = None) -> Task:
    """The task that a dict describes.

    Args:
        values: as of YAML, or of `Task.as_dict`.
        origin: where they come from, for messages.
        directory: where files are looked for that the environment and the expert name; they are hashed. None: the dict
            says where they are, and what their digests were.

    Raises:
        InvalidJob: something in it is wrong; all of it is named.
    """
    reader = _Reader(origin)
    task = reader.task(values, directory)
    if reader.problems or task is None:
        raise InvalidJob(reader.problems)
    return task


class _Reader:
    """Reads values and notes what is wrong with them."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.problems: list[Problem] = []

    def note(self, cause: str) -> None:
        self.problems.append(Problem("bad-task", f"{self.origin}: {cause}", CURE))

    def section(self, values: Any, name: str, keys: tuple[str, ...]) -> dict[str, Any]:
        """The entries of a section, after its keys were compared with the known ones."""
        if not isinstance(values, Mapping):
            self.note(f"{name} is {values!r}, not a section with the keys {', '.join(keys)}")
            return {}
        for key in values:
            if key not in keys:
                near = difflib.get_close_matches(str(key), keys, n=1)
                self.note(f"{name} has no key {key!r}" + (f"; did you mean {near[0]}?" if near else ""))
        return {str(key): value for key, value in values.items()}

    def get(self, section: Mapping[str, Any], name: str, key: str, types: Any, default: Any = _MISSING) -> Any:
        """An entry of the types, or the default; a bool is no number. Without a default it must be there."""
        value = section.get(key)
        if value is None or value == "none":
            if default is _MISSING:
                self.note(f"{name}.{key} is missing" if name else f"{key} is missing")
            return None if default is _MISSING else default
        whole = types if isinstance(types, tuple) else (types,)
        if not isinstance(value, whole) or (isinstance(value, bool) and bool not in whole):
            self.note(
                f"{f'{name}.' if name else ''}{key} is {value!r}, not {' or '.join(each.__name__ for each in whole)}"
            )
            return None if default is _MISSING else default
        return value

    def texts(self, section: Mapping[str, Any], name: str, key: str) -> tuple[str, ...] | None:
        """A list of texts, of which a single one may stand alone; None where there is none."""
        value = section.get(key)
        if value is None or value == "none":
            return None
        listed = value if isinstance(value, list | tuple) else [value]
        if not listed or not all(isinstance(each, str) and each.strip() for each in listed):
            self.note(f"{f'{name}.' if name else ''}{key} is {value!r}, not a text or a list of texts")
            return None
        return tuple(listed)

    def task(self, values: Any, directory: Path | None) -> Task | None:
        keys = (
            "name",
            "prompt",
            "prompts",
            "control_hz",
            "cameras",
            "state",
            "action",
            "env",
            "expert",
            "robot",
            "adapt",
        )
        top = self.section(values, "a task", keys)
        name = self.get(top, "", "name", str)
        if name is not None and not NAME.fullmatch(name):
            self.note(f"name is {name!r}: use letters, digits, dots, dashes, and / between parts")
        prompts = self.texts(top, "", "prompt" if "prompt" in top else "prompts")
        if "prompt" not in top and "prompts" not in top:
            self.note(f"prompt is missing: write a text, a list, or {OF_DATASET}, for that of each episode")
        rate = self.get(top, "", "control_hz", int)
        if rate is not None and rate <= 0:
            self.note(f"control_hz is {rate}, not a whole number above 0")
        cameras = self.cameras(top.get("cameras") or {})
        state = self.vector(top.get("state"), "state")
        action = self.vector(top.get("action"), "action")
        env = self.environment(top["env"], directory) if top.get("env") is not None else None
        expert = self.expert(top["expert"]) if top.get("expert") is not None else None
        adapt = self.adapter(top, {"state": state, "action": action}, load=directory is not None)
        if env is not None:
            self.paths(cameras, state, env)
            env = env if directory is None else self.with_sources(env, expert)
        elif expert is not None:
            self.note("expert is given, but no env for it to act in")
        if self.problems:
            return None
        assert isinstance(action, Action)
        prompts = None if prompts == (OF_DATASET,) else prompts
        robot = self.get(top, "", "robot", str, None)
        return Task(name, prompts, rate, cameras, state, action, env, expert, robot, adapt)

    def adapter(self, top: Mapping[str, Any], vectors: Mapping[str, Vector], *, load: bool) -> str | None:
        """The name of the adapter. One of another package is imported only with `load`: an environment's own
        interpreter may not have it, and does not need it."""
        name = self.get(top, "", "adapt", str, None)
        if name not in ADAPTERS and not load:
            return name
        try:
            adapter = find_adapter(name)
        except InvalidJob as error:
            self.problems += [replace(each, cause=f"{self.origin}: {each.cause}") for each in error.problems]
            return None
        if adapter is not None and adapter.dims is not None:
            for place, vector in vectors.items():
                if vector.dims is not None and vector.dims != adapter.dims:
                    self.note(f"{place}.dims is {vector.dims}, adapt: {name} is for {adapter.dims}")
        return name

    def cameras(self, values: Any) -> dict[str, Camera]:
        cameras = {}
        for slot, each in self.section(values, "cameras", SLOTS).items():
            if slot in SLOTS:
                place = f"cameras.{slot}"
                entry = self.section({"dataset": each} if isinstance(each, str) else each, place, ("dataset", "env"))
                cameras[slot] = Camera(self.get(entry, place, "dataset", str), self.get(entry, place, "env", str, None))
        return cameras

    def vector(self, values: Any, name: str) -> Any:
        keys = ("dataset", "dims", "names", "env", *(("delta", "clip") if name == "action" else ()))
        entry = self.section(values, name, keys)
        dims, names = self.get(entry, name, "dims", int), self.texts(entry, name, "names")
        if dims is not None and dims < 1:
            self.note(f"{name}.dims is {dims}, not 1 or more")
        if names is not None and dims is not None and len(names) != dims:
            self.note(f"{name}.names has {len(names)} entries, {name}.dims is {dims}")
        feature = self.get(entry, name, "dataset", str, "observation.state" if name == "state" else "action")
        if name == "state":
            paths = self.texts(entry, name, "env") if entry.get("env") else None
            return Vector(feature, dims, names, paths or ())
        return Action(feature, dims, names, (), str(entry.get("delta") or "none"), self.clip(entry))

    def clip(self, entry: Mapping[str, Any]) -> tuple[float, float] | None:
        value = entry.get("clip")
        if value is None or value == "none":
            return None
        if isinstance(value, list | tuple) and len(value) == 2 and all(type(each) in NUMBER for each in value):
            low, high = map(float, value)
            if low < high:
                return low, high
        self.note(f"action.clip is {value!r}, not the lowest and the highest value, as in [-1, 1]")
        return None

    def environment(self, values: Any, directory: Path | None) -> Environment:
        keys = tuple(Environment.__dataclass_fields__)
        entry = self.section(values, "env", keys)
        kind = self.get(entry, "env", "kind", str)
        if kind is not None and kind not in KINDS:
            self.note(f"env.kind is {kind!r}, none of {', '.join(KINDS)}")
        terms = {key: self.get(entry, "env", key, str, default) for key, default in TERMS.items()}
        for key, term in terms.items():
            if term is not None and (wrong := wrong_term(term)):
                self.note(f"env.{key}: {wrong}")
            elif term is not None and term.startswith(TERM) and kind != ISAACLAB:
                self.note(f"env.{key}: {term!r} is a termination term of IsaacLab, and env.kind is {kind!r}")
        counts = {key: self.get(entry, "env", key, int, default) for key, default in COUNTS.items()}
        for key, count in counts.items():
            if count < 1:
                self.note(f"env.{key} is {count}, not 1 or more")
        options = entry.get("options") or {}
        if not isinstance(options, Mapping):
            self.note(f"env.options is {options!r}, not a section of keyword arguments")
            options = {}
        where = self.get(entry, "env", "directory", str, None) if directory is None else str(directory.absolute())
        of_machine = {"python": self.get(entry, "env", "python", str, None), "directory": where}
        of_machine["setup"] = self.get(entry, "env", "setup", str, None)
        make, sources = self.get(entry, "env", "make", str, ""), entry.get("sources") or {}
        return Environment(kind, make, dict(options), **terms, **counts, **of_machine, sources=dict(sources))

    def expert(self, values: Any) -> Expert | None:
        entry = self.section({"make": values} if isinstance(values, str) else values, "expert", ("make", "noise_dims"))
        make, noise_dims = self.get(entry, "expert", "make", str), self.get(entry, "expert", "noise_dims", int, None)
        return None if make is None else Expert(make, noise_dims)

    def paths(self, cameras: Mapping[str, Camera], state: Vector, env: Environment) -> None:
        """The paths into the observation, which a task with an environment has for all that the policy reads."""
        if env.kind == KINDS[0]:
            return
        named = {f"cameras.{slot}.env": camera.env for slot, camera in cameras.items()}
        for place, path in [*named.items(), *(("state.env", path) for path in state.env or (None,))]:
            if path is None:
                self.note(f"{place} is missing: the path in the environment's observation")
            elif wrong := wrong_path(path):
                self.note(f"{place}: {wrong}")

    def with_sources(self, env: Environment, expert: Expert | None) -> Environment:
        """The environment with the sha256 of the files that it and the expert name, as far as they can be read."""
        sources = {}
        for make in (env.make, *([expert.make] if expert else []), *_functions(env)):
            file = source_file(make, env.directory)
            if file is None:
                continue
            if not file.is_file():
                self.note(f"there is no file {file}, which {make!r} names")
            else:
                sources[make.rpartition(":")[0]] = sha256(file.read_bytes()).hexdigest()
        return replace(env, sources=sources)


TERMS = {"success": "info.is_success", "failure": None}
COUNTS = {"dwell": 1, "max_steps": 400}


def _functions(env: Environment) -> list[str]:
    """The functions that the options of a task of IsaacLab name."""
    terms = env.options.get("terminations") if env.kind == ISAACLAB else None
    values = terms.values() if isinstance(terms, Mapping) else ()
    return [each["func"] for each in values if isinstance(each, Mapping) and isinstance(each.get("func"), str)]


def source_file(make: str, directory: str | None) -> Path | None:
    """The file that ``file.py:function`` names; None for what is imported or an environment's id."""
    file = make.rpartition(":")[0]
    return Path(directory or ".") / file if file.endswith(".py") else None
