"""Bundles, norm stats, policies and weights of somebody who knows how they are read."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from faults.attack import CANARY, Attack, Edit, all_of, write
from faults.hostile_datasets import ESC
from faults.hostile_json import CHECK, CONVERT, EVAL, MAKE, header, resealed

_BUNDLE = "ckpts/6"


class Bomb:
    """Pickled as a call that makes the canary."""

    def __init__(self, function: Callable[..., Any] = os.mkdir, *arguments: Any) -> None:
        self._call = function, arguments or (CANARY,)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self._call


def _json(name: str, change: Callable[[dict[str, Any]], object]) -> Edit:
    def edit(root: Path) -> None:
        value = json.loads((root / name).read_bytes())
        change(value)
        (root / name).write_text(json.dumps(value))

    return edit


def _config(**values: Any) -> Edit:
    return resealed(_json(f"{_BUNDLE}/config.json", lambda config: config.update(values)))


def _job(section: str, **values: Any) -> Edit:
    return resealed(_json(f"{_BUNDLE}/config.json", lambda config: config["job"][section].update(values)))


_FORGED: dict[str, Edit] = {
    "prompts as a list": _config(prompts=["Stack."]),
    "prompts as a text": _config(prompts="Stack."),
    "prompts of commands": _config(prompts={"0": ESC}),
    "state names as a number": _config(state_names=7),
    "action names as an object": _config(action_names={"a": 1}),
    "action names of commands": _config(action_names=[ESC] * 7),
    "a rate of commands": _config(control_hz=ESC),
    "a rate beyond all numbers": _config(control_hz=10**39),
    "a tokenizer as a list": _config(tokenizer=[1]),
    "a tokenizer of commands": _config(tokenizer={"kind": ESC}),
    "an environment as a text": _config(env="mujoco"),
    "an environment of commands": _config(env={"backend": ESC, "task": ESC}),
    "images as a list": _config(images=[[1, 2]]),
    "images of no size": _config(images={"front": [0, 0]}),
    "not known, a number": _config(not_known=7, source={"files": {}}),
    "not known, lists": _config(not_known=[["prompt"]]),
    "assumed, a list": _config(assumed=["prompt"]),
    "assumed, numbers": _config(assumed={"state": 7, "prompt": 7, "actions": 7}),
    "a source that is a text": _config(source="elsewhere"),
    "norm stats as a text": _config(norm_stats="elsewhere"),
    "no job": _config(job=None),
    "a job that is a list": _config(job=[1]),
    "a job without sections": _config(job={}),
    "a section that is a list": _config(job={"model": [1], "policy": 7, "preset": "tiny"}),
    "a preset that is an object": resealed(_json(f"{_BUNDLE}/config.json", lambda c: c["job"].update(preset={"a": 1}))),
    "an unknown key of commands": resealed(_json(f"{_BUNDLE}/config.json", lambda c: c["job"].update({ESC: 1}))),
    "an interpolation": _job("policy", asset_id="${oc.env:HOME}"),
    "an interpolation within a list": resealed(
        _json(f"{_BUNDLE}/config.json", lambda c: c["job"]["rl"].update(value_widths=["${oc.env:HOME}", 64]))
    ),
    "a model larger than the machine": _job("model", action_horizon=2**40, action_dim=2**40),
    "a model of ten digits": _job("model", vocab_size=10**12),
    "a model of no width": resealed(
        _json(f"{_BUNDLE}/config.json", lambda c: c["job"]["model"]["vlm"].update(width=0))
    ),
    "a negative depth": resealed(_json(f"{_BUNDLE}/config.json", lambda c: c["job"]["model"]["vlm"].update(depth=-1))),
    "a depth of a billion": resealed(
        _json(f"{_BUNDLE}/config.json", lambda c: [c["job"]["model"][n].update(depth=10**9) for n in ("vlm", "expert")])
    ),
    "a tokenizer elsewhere": _job("policy", tokenizer="/dev/zero"),
    "a denoising without end": _job("policy", denoise_steps=10**18),
}
_OF_FORGED = [
    Attack(f"doctor: a bundle with {name}", EVAL, edit, ("ckpts",), (0, 2)) for name, edit in _FORGED.items()
] + [
    Attack(f"{' '.join(words[:2])}: a bundle with {name}", words, _FORGED[name], ("ckpts",), codes)
    for words, codes in (
        (("bundle", "show", _BUNDLE), (0, 2)),
        (("lineage", _BUNDLE), (0, 2)),
        (("bundle", "make", _BUNDLE, "--output", "out"), (0, 2)),
    )
    for name in ("prompts as a list", "an unknown key of commands", "prompts of commands", "a source that is a text")
]


def _manifest(change: Callable[[dict[str, Any]], object]) -> Edit:
    return _json(f"{_BUNDLE}/bundle.json", change)


_MANIFESTS = [
    Attack(f"{words[0]}: a manifest with {name}", words, edit, ("ckpts",))
    for words in (("bundle", "verify", _BUNDLE), ("serve", _BUNDLE, "--port", "0"))
    for name, edit in {
        "a way out": _manifest(lambda m: m["files"].update({"../../etc/passwd": {"sha256": "0" * 64, "size": 1}})),
        "a name of commands": _manifest(lambda m: m["files"].update({ESC: {"sha256": "0" * 64, "size": 1}})),
        "a size beyond all disks": _manifest(lambda m: m["files"]["config.json"].update(size=10**30)),
        "an asset id of commands": _manifest(lambda m: m.update(asset_id=ESC)),
        "a lineage of commands": _manifest(lambda m: m["lineage"].update({ESC: ESC})),
        "another format": _manifest(lambda m: m.update(format_version=[1])),
    }.items()
]


def _stats(change: Callable[[dict[str, Any]], object]) -> Edit:
    return _json("stats/norm_stats.json", lambda value: change(value["norm_stats"]))


_NORM_STATS = [
    Attack(f"{' '.join(words[:2])}: norm stats with {name}", words, edit, ("stats", "preset.yaml"))
    for words in (CHECK, ("norm_stats", "--canonicalise", "stats/norm_stats.json", "--norm-stats-mode", "canonical"))
    for name, edit in {
        "keys of commands": _stats(lambda stats: stats.update({ESC: stats["state"]})),
        "a mean of commands": _stats(lambda stats: stats["state"].update(mean=[ESC])),
        "a mean of a million": _stats(lambda stats: stats["state"].update(mean=[0.0] * 200_000)),
        "a mean of lists": _stats(lambda stats: stats["state"].update(mean=[[[]]])),
        "a mean beyond all numbers": _stats(lambda stats: stats["state"].update(mean=[10**39] * 8, std=[1e308] * 8)),
        "statistics that are a text": _stats(lambda stats: stats.update(state="x")),
        "ten thousand keys": _stats(lambda stats: stats.update({f"k{n}": {} for n in range(10_000)})),
    }.items()
]


def _policy(**values: Any) -> Edit:
    return _json("policy/config.json", lambda config: config.update(values))


_POLICIES = [
    Attack(f"bundle: a policy with {name}", MAKE, edit, ("policy", "dummy.yaml"), (0, 2))
    for name, edit in {
        "a type of commands": _policy(type=ESC),
        "a type that is a list": _policy(type=["pi0"]),
        "features as a number": _policy(input_features=7),
        "features of commands": _policy(input_features={ESC: {"type": ESC, "shape": ESC}}),
        "shapes beyond all numbers": _policy(
            input_features={"observation.state": {"type": "STATE", "shape": [10**39]}}
        ),
        "a chunk of commands": _policy(chunk_size=ESC),
        "an interpolation": _policy(paligemma_variant="${oc.env:HOME}"),
        "normalisations as a list": _policy(normalization_mapping=["MEAN_STD"]),
        "names that are numbers": _policy(action_feature_names=[1, 2]),
        "steps that are no list": _json("policy/policy_preprocessor.json", lambda v: v.update(steps={"a": 1})),
        "steps of steps": _json("policy/policy_preprocessor.json", lambda v: v.update(steps=[[], 7, None, "x"])),
        "statistics elsewhere": _json(
            "policy/policy_preprocessor.json", lambda v: [s.update(state_file="/etc/passwd") for s in v["steps"]]
        ),
        "statistics of commands": _json(
            "policy/policy_preprocessor.json", lambda v: [s.update(state_file=f"{ESC}.safetensors") for s in v["steps"]]
        ),
        "metadata that run code": lambda root: torch.save({"config": Bomb()}, root / "policy/metadata.pt"),
        "metadata of a list": lambda root: torch.save([1], root / "policy/metadata.pt"),
        "metadata of a model of commands": lambda root: torch.save(
            {"config": {"model": {"action_horizon": ESC, "paligemma_variant": ESC}}}, root / "policy/metadata.pt"
        ),
    }.items()
]


def _leaf(*keys: Any) -> dict[str, Any]:
    return {"key_metadata": [{"key": key} for key in keys], "value_metadata": {"value_type": "jax.Array"}}


def _tree(tree: Any) -> Edit:
    content = json.dumps({"tree_metadata": tree, "store_array_data_equal_to_fill_value": True})
    return all_of(
        write("base/params/_METADATA", content), write("base/params/manifest.ocdbt", b"OCDBT" * 8), _base_stats
    )


def _base_stats(root: Path) -> None:
    (root / "base/assets").mkdir(parents=True, exist_ok=True)
    (root / "base/assets/norm_stats.json").write_bytes((root / "stats/norm_stats.json").read_bytes())


_MAKE_BASE = ("bundle", "make", "base", "--step", "0", "--preset", "dummy.yaml", "--output", "out")
_JAX = [
    Attack(f"bundle: a JAX checkpoint with {name}", _MAKE_BASE, edit, ("stats", "dummy.yaml"))
    for name, edit in {
        "names of commands": _tree({ESC: _leaf("params", ESC)}),
        "a way out": _tree({"a": _leaf("..", "..", "/etc/passwd")}),
        "names that are numbers": _tree({"a": _leaf(7, None, [1])}),
        "a tree that is a text": _tree(ESC),
        "a hundred thousand arrays": _tree({str(n): _leaf("params", str(n)) for n in range(100_000)}),
        "metadata of zeros": all_of(write("base/params/_METADATA", bytes(100)), _base_stats),
        "a pipe": all_of(_tree({}), lambda root: os.mkfifo(root / "base/params/pipe")),
        "a loop": all_of(_tree({}), lambda root: os.symlink("..", root / "base/params/loop")),
        "metadata elsewhere": all_of(_tree({}), lambda root: (root / "base/params/d").symlink_to("/dev/zero")),
    }.items()
]


_HUB = [
    Attack(f"bundle: a model of the hub with {name}", ("bundle", "make", uri, "--step", "0", "--output", "out"))
    for name, uri in {
        "a way out": "hf://lab/model/../../../etc",
        "a name of commands": f"hf://lab/{ESC}",
        "no name": "hf://",
        "a revision of commands": f"hf://lab/model@{ESC} {ESC}",
    }.items()
]


def _saved(value: Any, **settings: Any) -> bytes:
    file = io.BytesIO()
    torch.save(value, file, **settings)
    return file.getvalue()


def _zip(compression: int = zipfile.ZIP_STORED, **records: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in records.items():
            archive.writestr(f"model/{name.replace('_', '.')}", data)
    return file.getvalue()


def _entry(**fields: Any) -> bytes:
    return json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **fields}}).encode()


_TENSOR = torch.ones(2)
_PICKLES: dict[str, bytes] = {
    "code": _saved({"w": Bomb()}),
    "code in an old file": _saved({"w": Bomb()}, _use_new_zipfile_serialization=False),
    "a shell": _saved({"w": Bomb(os.system, f"touch {CANARY}")}),
    "an expression": _saved({"w": Bomb(eval, f"__import__('os').mkdir('{CANARY}')")}),
    "a pickle alone": pickle.dumps({"w": Bomb()}),
    "an old protocol": pickle.dumps({"w": Bomb()}, 0),
    "a module that runs": b"c__main__\nx\n(tR.",
    "a call by the stack": b"\x80\x04cposix\nsystem\n\x8c"
    + bytes([len(f"touch {CANARY}")])
    + f"touch {CANARY}".encode()
    + b"\x85R.",
    "a memo of two billion": b"\x80\x02}r\xff\xff\xff\x7f.",
    "a text of four gigabytes": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 32) + b"x.",
    "a frame of eight exabytes": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"N.",
    "lists within lists": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "tuples that double": b"\x80\x02)" + b"\x86" * 0 + b"q\x00h\x00\x86" * 60 + b".",
    "an archive of nothing": _zip(),
    "an archive that is compressed": _zip(zipfile.ZIP_DEFLATED, data_pkl=bytes(50_000_000)),
    "an archive with a way out": _zip(**{"/../../../canary": b"x"}),
    "an archive with names of commands": _zip(**{ESC: b"x"}),
    "an archive and nothing behind": _saved({"w": _TENSOR})[:-30],
    "keys of commands": _saved({ESC: _TENSOR}),
    "keys that are objects": _saved({(1, (2, ESC)): _TENSOR}),
    "a tensor that repeats itself": _saved({"w": _TENSOR[:1].expand(10**12)}),
    "a view beyond its storage": _saved({"w": _TENSOR}).replace(b"K\x02", b"K\x7f"),
    "itself": b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s.",
}
_WEIGHTS = [
    Attack(f"convert: {name} in a .pt file", (*CONVERT, "x.pt"), write("x.pt", data), (), (0, 2))
    for name, data in _PICKLES.items()
] + [
    Attack(f"convert: a tensor with {name}", (*CONVERT, "x.safetensors"), write("x.safetensors", data))
    for name, data in {
        "a header of eight exabytes": struct.pack("<Q", 1 << 62) + b"{}",
        "a header longer than the file": struct.pack("<Q", 1000) + b"{}",
        "data that are not there": header(_entry()),
        "a shape beyond all numbers": header(_entry(shape=[10**39])),
        "a shape of zeros": header(_entry(shape=[0] * 10_000, data_offsets=[0, 0])) + b"abcd",
        "a negative shape": header(_entry(shape=[-1])) + b"abcd",
        "offsets backwards": header(_entry(data_offsets=[4, 0])) + b"abcd",
        "an unknown dtype of commands": header(_entry(dtype=ESC)) + b"abcd",
        "a shape of truth": header(_entry(shape=[True])) + b"abcd",
        "metadata of numbers": header(b'{"__metadata__": {"a": 1}}'),
        "a name of commands and a hole": header(
            json.dumps({ESC: json.loads(_entry(data_offsets=[4, 8]))["a"]}).encode()
        )
        + b"abcdabcd",
    }.items()
]
_PLACES = [
    Attack(
        "convert: a tensor's name of commands",
        (*CONVERT, "x.safetensors", "--dry-run"),
        write("x.safetensors", header(json.dumps({ESC: json.loads(_entry())["a"]}).encode()) + b"abcd"),
        (),
        (0, 2),
    ),
    Attack(
        "convert: an index that leads out",
        (*CONVERT, "shards"),
        _json("shards/model.safetensors.index.json", lambda v: v.update(weight_map={"a": "../model.safetensors"})),
        ("shards",),
    ),
    Attack(
        "convert: an index of commands",
        (*CONVERT, "shards"),
        _json("shards/model.safetensors.index.json", lambda v: v.update(weight_map={ESC: f"{ESC}.safetensors"})),
        ("shards",),
    ),
    Attack(
        "convert: an index of lists",
        (*CONVERT, "shards"),
        _json("shards/model.safetensors.index.json", lambda v: v.update(weight_map=[["a"]])),
        ("shards",),
    ),
    Attack(
        "bundle: weights that run code",
        ("bundle", "make", "x.pt", "--norm-stats", "stats/norm_stats.json", "--step", "1", "--output", "out"),
        write("x.pt", _PICKLES["code"]),
        ("stats",),
    ),
    Attack("serve: a bundle that is a pipe", ("serve", "pipe"), lambda root: os.mkfifo(root / "pipe")),
]

CHECKPOINTS = [*_OF_FORGED, *_MANIFESTS, *_NORM_STATS, *_POLICIES, *_JAX, *_HUB, *_WEIGHTS, *_PLACES]
