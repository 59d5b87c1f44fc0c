from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlinf_isaac.checkpoint.manifest import FileEntry, Manifest, is_safe_name
from rlinf_isaac.ground.digest import json_digest

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
counts = st.integers(0, 2**50)
file_names = st.from_regex(r"[a-z0-9_]{1,8}(/[a-z0-9_.]{1,8})?\.safetensors", fullmatch=True).filter(is_safe_name)
manifests = st.builds(
    Manifest,
    step=counts,
    asset_id=st.from_regex(r"[a-z]{1,6}(/[a-z]{1,6})?", fullmatch=True),
    files=st.dictionaries(file_names, st.builds(FileEntry, digests, counts), min_size=1, max_size=4),
    dtypes=st.dictionaries(st.sampled_from(["F32", "BF16", "I64"]), counts),
    parameters=counts,
    tied=st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=2),
    lineage=st.dictionaries(st.sampled_from(["dataset", "norm_stats", "parent"]), st.none() | digests),
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=5,
)

EXAMPLE = Manifest(
    step=400,
    asset_id="isaaclab_stack_cube",
    files={"config.json": FileEntry("a" * 64, 3), "model.safetensors": FileEntry("b" * 64, 999)},
    dtypes={"F32": 2},
    parameters=12,
    tied={"embed": "head"},
    lineage={"dataset": "c" * 64, "parent": None},
)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """The path of every value inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


@settings(deadline=None)
@given(manifests)
def test_bytes_round_trip(manifest):
    assert Manifest.from_bytes(manifest.to_bytes()) == manifest


@settings(deadline=None)
@given(manifests, manifests)
def test_only_equal_manifests_have_equal_digests(one, other):
    assert (one == other) == (one.digest == other.digest)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_any_other_value_anywhere_is_refused_even_with_a_matching_digest(data):
    values = json.loads(EXAMPLE.to_bytes())
    place = data.draw(st.sampled_from(places(values)[1:]))
    parent = values
    for key in place[:-1]:
        parent = parent[key]
    old, new = parent[place[-1]], data.draw(json_values)
    parent[place[-1]] = new
    forged = copy.deepcopy(values)
    forged["digest"] = json_digest({key: value for key, value in forged.items() if key != "digest"})
    for attempt in (values, forged):
        encoded = (json.dumps(attempt, indent=2, sort_keys=True) + "\n").encode()
        try:
            accepted = Manifest.from_bytes(encoded)
        except ValueError:
            continue
        # What passes is well-formed: a lawful edit whose digest was recomputed, or no edit at all.
        assert accepted.to_bytes() == encoded
        assert attempt is forged or (type(new), new) == (type(old), old)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=300) | json_values.map(lambda value: json.dumps(value).encode()))
def test_other_bytes_raise_only_value_errors(data):
    with pytest.raises(ValueError, match=r"\w"):
        Manifest.from_bytes(data)


def test_every_single_byte_change_is_noticed():
    whole = EXAMPLE.to_bytes()
    for position in range(len(whole)):
        for mask in (0x01, 0x20, 0x80):
            damaged = bytearray(whole)
            damaged[position] ^= mask
            with pytest.raises(ValueError, match=r"\w"):
                Manifest.from_bytes(bytes(damaged))


@pytest.mark.parametrize(
    "data",
    [b"[" * 100_000, b" " * 17_000_000, b"\xff", b'{"a": 1e999999}', b"9" * 5000],
    ids=["nested", "blanks", "no text", "a large number", "a long number"],
)
def test_hostile_bytes(data):
    with pytest.raises(ValueError, match=r"\w"):
        Manifest.from_bytes(data)


def test_a_newer_format_says_so():
    values = {**json.loads(EXAMPLE.to_bytes()), "format_version": 2}
    with pytest.raises(ValueError, match="format version 2; this release reads 1"):
        Manifest.from_bytes(json.dumps(values).encode())


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("model.safetensors", True),
        ("assets/physical-intelligence/libero/norm_stats.json", True),
        ("../model.safetensors", False),
        ("a/../b", False),
        ("/etc/passwd", False),
        ("a//b", False),
        ("a/", False),
        (".hidden", False),
        ("a\\b", False),
        ("a b", False),
        ("$(id)", False),
        ("a\n", False),
        ("", False),
        (None, False),
    ],
)
def test_names_stay_inside_the_bundle(name, safe):
    assert is_safe_name(name) is safe
