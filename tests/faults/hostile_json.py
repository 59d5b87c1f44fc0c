"""Documents that are no JSON, or JSON that no writer writes, and things that are no files, wherever a file is read."""

from __future__ import annotations

import codecs
from pathlib import Path

from faults.attack import SPECIAL, Attack, Edit, all_of, crossed, special, write
from faults.world import SHARDS_INDEX, reseal

ESCAPES = "\\u001b]0;gone\\u0007\\u001b[2J\\u009b31m\\u202e\\u2066\\r\\nerror forged"
"""Sets a title, clears the screen, turns a path round, begins a line of its own; as JSON spells it."""
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "blanks": b"  \n ",
    "a list": b"[]",
    "a number": b"7",
    "null": b"null",
    "a text": b'"x"',
    "lists that open for ever": b"[" * 200_000,
    "objects in objects": b'{"format":' * 20_000 + b"1" + b"}" * 20_000,
    "lists below the limit of the parser": b'{"format":' + b"[" * 900 + b"]" * 900 + b"}",
    "an integer of five thousand digits": b'{"format":' + b"9" * 5000 + b"}",
    "a number beyond all numbers": b'{"format":1e999999}',
    "a key twice": b'{"format":1,"format":2}',
    "a constant that is none": b'{"format":NaN}',
    "half a surrogate pair": b'{"format":"\\ud800"}',
    "a byte order mark": codecs.BOM_UTF8 + b"{}",
    "UTF-16": '{"format":1}'.encode("utf-16"),
    "a byte that is no UTF-8": b'{"format":"\xff"}',
    "null bytes": bytes(5000),
    "many megabytes of blanks": b" " * 17_000_000,
    "commands for the terminal": f'{{"{ESCAPES}":{{"{ESCAPES}":1}}}}'.encode(),
    "bare commands for the terminal": b'{"\x1b[2J":"\x1b]0;gone\x07"}',
}

DOCTOR = ("doctor", "--dataset", "dataset")
SFT = ("doctor", "sft", "--dataset", "dataset", "--preset", "preset.yaml")
CHECK = ("norm_stats", "--check", "stats/norm_stats.json", "--preset", "preset.yaml")
EVAL = ("doctor", "eval", "--ckpt-root", "ckpts")
MAKE = ("bundle", "make", "policy", "--step", "1", "--preset", "dummy.yaml", "--output", "out")
CONVERT = ("convert", "--output", "out/converted", "--input")
# What MLflow itself makes of a file that holds no object is its own affair.
RAY = ("run", "-b", "rlinf-ray", "-e", "doctor", "--env-manager", "local", "--backend-config", "ray.json")


def resealed(edit: Edit) -> Edit:
    """The edit of a bundle by somebody who writes its manifest anew."""

    def sealed(root: Path) -> None:
        edit(root)
        reseal(root / "ckpts" / "6")

    return sealed


def header(body: bytes) -> bytes:
    """A safetensors file with that header, and no data."""
    return len(body).to_bytes(8, "little") + body


# What a document is put in the place of, what reads it, what that needs, and exit codes that are right besides 2.
_READ: tuple[tuple[str, tuple[str, ...], tuple[str, ...], tuple[int, ...]], ...] = (
    ("dataset/meta/info.json", DOCTOR, ("dataset",), ()),
    ("dataset/meta/episodes.jsonl", DOCTOR, ("dataset",), ()),
    ("dataset/meta/tasks.jsonl", SFT, ("dataset", "preset.yaml"), ()),
    ("dataset/meta/provenance.json", SFT, ("dataset", "preset.yaml"), (0,)),
    ("stats/norm_stats.json", CHECK, ("stats", "preset.yaml"), ()),
    ("ckpts/6/bundle.json", ("bundle", "verify", "ckpts/6"), ("ckpts",), ()),
    ("ckpts/6/config.json", EVAL, ("ckpts",), (0,)),
    ("policy/config.json", MAKE, ("policy", "dummy.yaml"), (0,)),
    ("policy/policy_preprocessor.json", MAKE, ("policy", "dummy.yaml"), (0,)),
    (SHARDS_INDEX, (*CONVERT, "shards"), ("shards",), ()),
)


def _document(place: int, name: str) -> Attack:
    file, words, needs, codes = _READ[place]
    edit = write(file, BODIES[name])
    if file == "ckpts/6/config.json":
        edit = _forged(edit)
    return Attack(f"{words[0]}: {name} as {file}", words, edit, needs, (2, *codes))


def _forged(edit: Edit) -> Edit:
    """Sealed anew where that goes; where it does not, the manifest names other bytes."""

    def forge(root: Path) -> None:
        manifest = (root / "ckpts/6/bundle.json").read_bytes()
        try:
            resealed(edit)(root)
        except Exception:
            (root / "ckpts/6/bundle.json").write_bytes(manifest)

    return forge


DOCUMENTS = [
    *(_document(place, list(BODIES)[body]) for body, place in crossed(len(BODIES), len(_READ), 3)),
    *(
        Attack(
            f"convert: {name} as the header of weights",
            (*CONVERT, "x.safetensors"),
            write("x.safetensors", header(body)),
        )
        for name, body in BODIES.items()
    ),
]

_OTHERS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], tuple[int, ...]], ...] = (
    ("dataset/data/chunk-000/episode_000000.parquet", DOCTOR, ("dataset",), ()),
    ("dataset/data/chunk-000/episode_000001.parquet", SFT, ("dataset", "preset.yaml"), ()),
    ("ckpts/6/model.safetensors", ("bundle", "verify", "ckpts/6"), ("ckpts",), ()),
    ("policy/metadata.pt", MAKE, ("policy", "dummy.yaml"), (0,)),
    ("preset.yaml", ("doctor", "--preset", "preset.yaml"), (), ()),
    ("tokens.model", ("doctor", "--preset", "with_tokens.yaml"), (), ()),
    ("key", ("serve", "ckpts/6", "--api-key", "file:key"), ("ckpts",), ()),
    ("model.pt", (*CONVERT, "model.pt"), (), ()),
    ("model.safetensors", (*CONVERT, "model.safetensors"), (), ()),
    ("log/tensorboard/config.yaml", ("ingest", "--source", "log", "--output", "out"), ("log",), ()),
    ("log/tensorboard/events.out.tfevents.1", ("ingest", "--source", "log", "--output", "out"), ("log",), ()),
    ("stats/norm_stats.json", ("norm_stats", "--canonicalise", "stats/norm_stats.json"), ("stats",), ()),
)


def _place(number: int, kind: str) -> Attack:
    file, words, needs, codes = [*_READ, *_OTHERS][number]
    edit = special(file, kind)
    if file == "tokens.model":
        edit = all_of(edit, write("with_tokens.yaml", "base: tiny\npolicy: {tokenizer: tokens.model}\n"))
    # A link to nothing, or to itself, is a file that is not there; some need not be.
    may_pass = (
        (0,) if kind.startswith("a link") and file.endswith(("metadata.pt", "preprocessor.json", "index.json")) else ()
    )
    return Attack(f"{' '.join(words[:2])}: {kind} as {file}", words, edit, needs, (2, *codes, *may_pass))


PLACES = [_place(number, list(SPECIAL)[kind]) for kind, number in crossed(len(SPECIAL), len(_READ) + len(_OTHERS), 3)]
