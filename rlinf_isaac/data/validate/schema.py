"""Checks schemas of parquet files against the features in ``meta/info.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa

from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings, Level
from rlinf_isaac.data.lerobot.format import Feature

TEXT_DTYPES = ("string", "large_string", "language")
_CURE = "write the files again, or correct meta/info.json"


class SchemaChecks:
    """Checks parquet schemas. Files of one dataset have equal schemas, so a schema is analysed only when it changes."""

    def __init__(self, features: Mapping[str, Feature]) -> None:
        self._features = {name: feature for name, feature in features.items() if feature.dtype != "video"}
        self._schema: pa.Schema | None = None
        self._faults: list[tuple[str, str, str, Level]] = []
        self._readable: list[str] = []

    def check(self, path: Path, schema: pa.Schema, findings: FoldedFindings) -> list[str]:
        """Add the problems of a schema. Returns the numeric columns whose type is that of their features."""
        if self._schema is None or not schema.equals(self._schema, check_metadata=True):
            self._schema, self._faults, self._readable = schema, [], []
            self._compare(schema)
        for code, cause, cure, level in self._faults:
            findings.add(code, f"{path}: {cause}", cure, level)
        return self._readable

    def _compare(self, schema: pa.Schema) -> None:
        if missing := sorted(self._features.keys() - set(schema.names)):
            cause = f"it lacks the columns {', '.join(missing)}"
            self._faults.append(("parquet-columns", cause, "restore the file; every frame needs them", "error"))
        if surplus := sorted(set(schema.names) - self._features.keys()):
            cause = f"meta/info.json does not describe its columns {', '.join(surplus)}"
            self._faults.append(("surplus-column", cause, "describe them in the features, or drop them", "warning"))
        for name in (name for name in schema.names if name in self._features):
            feature, stored = self._features[name], schema.field(name).type
            if feature.dtype in TEXT_DTYPES or (feature.dtype == "image" and holds_images(stored)):
                continue
            size, leaf = _leaf(stored)
            if not _is_dtype(leaf, feature.dtype):
                cause = f"{name} is stored as {stored}, but the feature's dtype is {feature.dtype}"
                self._faults.append(("feature-dtype", cause, _CURE, "error"))
            elif size is not None and size != math.prod(feature.shape):
                cause = f"{name} has {size} entries, but the feature's shape is {list(feature.shape)}"
                self._faults.append(("feature-shape", cause, _CURE, "error"))
            else:
                self._readable.append(name)
        if b'"List"' in (described := (schema.metadata or {}).get(b"huggingface", b"")) and _has_list(described):
            cause = "its 'huggingface' metadata says List, which datasets 3.6, pinned by RLinf and OpenPI, cannot read"
            cure = "replace List by Sequence in the parquet files' schema metadata; datasets>=4 reads that as well"
            self._faults.append(("hf-list-feature", cause, cure, "warning"))


def _leaf(type_: pa.DataType) -> tuple[int | None, pa.DataType]:
    """Entries per row (None if rows may differ), and the type of an entry."""
    size: int | None = 1
    while pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        fixed = pa.types.is_fixed_size_list(type_)
        size = size * type_.list_size if fixed and size is not None else None
        type_ = type_.value_type
    return size, type_


def holds_images(type_: pa.DataType) -> bool:
    """Whether a column has the type that ``datasets.Image`` uses: a struct of bytes and path."""
    return pa.types.is_struct(type_) and type_.get_field_index("bytes") >= 0


def _is_dtype(leaf: pa.DataType, dtype: str) -> bool:
    try:
        return leaf == pa.from_numpy_dtype(np.dtype(dtype))
    except (TypeError, pa.ArrowException):
        return False


def _has_list(described: bytes) -> bool:
    """Whether any feature in a ``huggingface`` schema metadata is of type List."""
    try:
        pending = [json.loads(described)]
    except ValueError:
        return False
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if value.get("_type") == "List":
                return True
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return False
