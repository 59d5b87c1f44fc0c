"""Options: numbers that are none, names that are too long, places where nothing can be written, stores that are not
there."""

from __future__ import annotations

import os
from pathlib import Path

from faults.attack import Attack, special
from faults.hostile_datasets import ESC

LONG = "a" * 5000
NUMBERS = (
    "nan",
    "inf",
    "-1",
    "0",
    "1e400",
    "9" * 50,
    "",
    "1;touch canary",
    "$(touch canary)",
    "٣",
    ESC,
    "\udcff",
    "none",
)

_SFT = ("doctor", "sft", "--dataset", "dataset", "--preset", "preset.yaml")
_NUMERIC = {
    "--steps": _SFT,
    "--lr": _SFT,
    "--batch-size": _SFT,
    "--episodes": ("doctor", "demos", "--preset", "preset.yaml"),
    "--seed": ("doctor", "main", "--preset", "preset.yaml"),
    "--ckpt-steps": ("doctor", "eval", "--ckpt-root", "ckpts"),
    "--batch": ("doctor", "eval", "--ckpt-root", "ckpts", "--until-decided"),
    "--parallel": ("doctor", "eval", "--ckpt-root", "ckpts"),
    "--max-shard-size": ("convert", "--input", "model.pt", "--output", "out", "--dry-run"),
    "--step": ("bundle", "make", "policy", "--preset", "dummy.yaml", "--output", "out"),
    "--min-success": ("promote", "none"),
    "--alpha": ("promote", "none"),
    "--port": ("serve", "nowhere"),
    "--fps": ("dataset", "import", "nowhere.hdf5", "--output", "out", "--prompt", "x"),
}
_NEEDS = {
    "doctor": ("dataset", "preset.yaml", "ckpts"),
    "convert": ("model.pt",),
    "bundle": ("policy", "dummy.yaml"),
    "dataset": ("model.pt",),
}
_OF_NUMBERS = [
    Attack(f"{words[0]}: {option} {text[:30]!r}", (*words, option, text), needs=_NEEDS.get(words[0], ()), codes=(0, 2))
    for row, (option, words) in enumerate(_NUMERIC.items())
    for column, text in enumerate(NUMBERS)
    if (row + column) % 4 == 0 and "\0" not in text and not (option == "--step" and text in ("0", "9" * 50))
]

_NAMES = {
    "--preset": ("doctor",),
    "--dataset": ("doctor",),
    "--asset-id": ("bundle", "make", "policy", "--step", "1", "--preset", "dummy.yaml", "--output", "out"),
    "--name": ("bundle", "make", "policy", "--step", "1", "--preset", "dummy.yaml", "--output", "out"),
    "--norm-stats": ("doctor", "eval", "--ckpt-root", "ckpts"),
    "--ckpt-root": ("doctor", "eval"),
    "--input": ("convert", "--output", "out"),
    "--source": ("ingest", "--output", "out"),
    "--tracking-uri": ("sync", "--output", "out"),
    "--rlinf-overrides": ("doctor", "eval", "--ckpt-root", "ckpts", "--engine", "rlinf"),
    "--venv": ("isaaclab", "setup", "--dry-run", "--python", "/nowhere"),
    "--mask": ("dataset", "import", "model.pt", "--output", "out", "--prompt", "x"),
    "--prompt": ("dataset", "import", "nowhere.hdf5", "--output", "out"),
    "--cameras": ("dataset", "import", "/dev/zero", "--output", "out", "--prompt", "x"),
    "--state": ("dataset", "import", ESC, "--output", "out", "--prompt", "x"),
    "--action-key": ("dataset", "import", LONG, "--output", "out", "--prompt", "x"),
    "--api-key": ("serve", "nowhere"),
}
_TEXTS = {
    "a name of commands": ESC + "\nerror forged",
    "a very long name": LONG,
    "a name of many parts": "a/" * 3000,
    "nothing": "",
    "half a surrogate pair": "\udcff",
    "a device": "/dev/zero",
    "markup": "[bold]x[/] [/] [link=http://x]y",
}
_OF_NAMES = [
    Attack(
        f"{words[0]}: {option} is {name}",
        (*words, option, text),
        needs=_NEEDS.get(words[0], ()),
        codes=(0, 1, 2) if words[0] in ("sync", "isaaclab") else (0, 2),
    )
    for row, (option, words) in enumerate(_NAMES.items())
    for column, (name, text) in enumerate(_TEXTS.items())
    if (row + column) % 2 == 0 and not (option in ("--name", "--asset-id") and name == "half a surrogate pair")
]


def _dangling(root: Path) -> None:
    (root / "out").symlink_to("/nowhere/at/all")


_PLACES = {
    "a link to nothing": ("out", _dangling),
    "a link to itself": ("out", special("out", "a link to itself")),
    "a pipe": ("out", special("out", "a pipe")),
    "below a pipe": ("out/below", special("out", "a pipe")),
    "a device": ("/dev/null", lambda root: None),
    "below a device": ("/dev/null/out", lambda root: None),
    "in a file system of the kernel": ("/proc/out", lambda root: None),
    "of a very long name": (LONG, lambda root: None),
    "of commands, below a file": (f"f/{ESC}", lambda root: (root / "f").touch()),
}
_WRITERS = {
    "demos": ((), ("preset.yaml",)),
    "sft": (("--dataset", "dataset"), ("dataset", "preset.yaml")),
    "norm_stats": (("--dataset", "dataset"), ("dataset", "preset.yaml")),
    "main": ((), ("preset.yaml",)),
}


def _codes(place: str) -> tuple[int, ...]:
    """The kernel says that /proc may be written to, and then that it may not."""
    return (1, 2) if place.startswith("/proc") else (2,)


_OF_PLACES = [
    Attack(
        f"{verb}: an output {name}",
        (verb, "--preset", "preset.yaml", *words, "--output", place),
        edit,
        needs,
        _codes(place),
    )
    for row, (verb, (words, needs)) in enumerate(_WRITERS.items())
    for column, (name, (place, edit)) in enumerate(_PLACES.items())
    if (row + column) % 2 == 0 or "link" in name
] + [
    Attack(f"{' '.join(words[:2])}: an output {name}", (*words, "--output", place), edit, needs, _codes(place))
    for words, needs in (
        (("eval", "--ckpt-root", "ckpts"), ("ckpts",)),
        (("bundle", "make", "policy", "--step", "1", "--preset", "dummy.yaml"), ("policy", "dummy.yaml")),
        (("convert", "--input", "model.pt"), ("model.pt",)),
        (("norm_stats", "--canonicalise", "stats/norm_stats.json", "--norm-stats-mode", "canonical"), ("stats",)),
    )
    for name, (place, edit) in list(_PLACES.items())[::2]
]

_GONE = {"MLFLOW_TRACKING_URI": "http://bob:hunter2@127.0.0.1:9"}
_STORES = {
    "a server that is not there": _GONE,
    "no URI": {"MLFLOW_TRACKING_URI": ESC},
    "a database in a file": {"MLFLOW_TRACKING_URI": "sqlite:////proc/version"},
    "a database of a long name": {"MLFLOW_TRACKING_URI": f"sqlite:////tmp/{LONG}"},
    "another kind of store": {"MLFLOW_TRACKING_URI": "gopher://x"},
}
_RUN = "0123456789abcdef0123456789abcdef"
_OF_STORES = [
    Attack(f"{' '.join(words[:2])}: {name}", words, codes=(1, 2, 3), environment=environment)
    for name, environment in _STORES.items()
    for words in (
        ("promote", _RUN, "--output", "out"),
        ("promote", "--rollback", "--output", "out"),
        ("compare", _RUN, "--output", "out"),
        ("lineage", _RUN),
        ("serve", "models:/stack-cube@champion"),
    )
]
_SUBJECTS = (
    "models:/../../etc@champion",
    "models:/",
    "models:/x/" + "9" * 400,
    f"models:/{ESC}/1",
    "m-" + "g" * 32,
    ESC,
    LONG,
    "/dev/zero",
    "",
)
_OF_SUBJECTS = [
    Attack(f"{verb}: the subject {subject[:30]!r}", (verb, subject), codes=(1, 2))
    for row, verb in enumerate(("lineage", "serve", "promote", "compare"))
    for column, subject in enumerate(_SUBJECTS)
    if (row + column) % 2 == 0
]
_OF_COMMANDS = [
    Attack(f"{words[0][:12]!r}: {words[1][:20]!r}", words)
    for words in (
        (ESC, "x"),
        ("sft" + "\u202e", "x"),
        ("sft", f"--{ESC}"),
        ("sft", "--engine", ESC),
        ("eval", "--parallel", ESC),
        ("doctor", "sft 'x"),
        ("doctor", f"{ESC} x"),
        ("doctor", "eval --ckpt-root x --foo\x1b[2J"),
        ("bundle", ESC),
        ("bundle", "make"),
        ("convert", "--dtype"),
        ("demos", "--renderer", ESC),
        ("norm_stats", "--check"),
        ("main", "--upload-weights", ESC),
    )
]


def _forge_names(root: Path) -> None:
    """Checkpoints whose directories have names of commands, and a step of sixty digits."""
    for name in (ESC.replace("/", ""), "9" * 60, "step_" + "9" * 200):
        os.makedirs(root / "ckpts" / name)
        (root / "ckpts" / name / "x").touch()


_OF_TREES = [
    Attack(
        "doctor: checkpoints of odd names", ("doctor", "eval", "--ckpt-root", "ckpts"), _forge_names, ("ckpts",), (0, 2)
    ),
    Attack(
        "eval: checkpoints of odd names",
        ("eval", "--ckpt-root", "ckpts", "--ckpt-steps", "7"),
        _forge_names,
        ("ckpts",),
    ),
]

OPTIONS = [*_OF_NUMBERS, *_OF_NAMES, *_OF_PLACES, *_OF_STORES, *_OF_SUBJECTS, *_OF_COMMANDS, *_OF_TREES]
