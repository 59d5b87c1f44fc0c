from __future__ import annotations

import json
import math
from pathlib import Path

import pyarrow as pa
import pytest

from rlinf_isaac.data.lerobot.folded_findings import FoldedFindings
from rlinf_isaac.data.lerobot.format import (
    ACTION,
    AUX_FEATURES,
    FRONT_IMAGE,
    IMAGE_TYPE,
    Feature,
    huggingface_metadata,
    image_feature,
    vector_feature,
)
from rlinf_isaac.data.validate.schema import SchemaChecks

FEATURES = {
    ACTION: vector_feature(["dx", "dy"]),
    "reward": Feature("float32", (1,)),
    "done": Feature("bool", (1,)),
    "grid": Feature("float64", (2, 3)),
    "note": Feature("string", (1,)),
    FRONT_IMAGE: image_feature(8, 8),
    "camera": Feature("video", (8, 8, 3)),
}
STORED = {
    ACTION: pa.list_(pa.float32(), 2),
    "reward": pa.float32(),
    "done": pa.bool_(),
    "grid": pa.list_(pa.list_(pa.float64(), 3), 2),
    "note": pa.string(),
    FRONT_IMAGE: IMAGE_TYPE,
}
PATH = Path("data/file.parquet")


def check(changes=None, metadata=None, dropped=()) -> tuple[list[str], list[tuple[str, str]]]:
    """Readable columns and (code, cause) of each problem."""
    fields = {name: type_ for name, type_ in (STORED | (changes or {})).items() if name not in dropped}
    findings = FoldedFindings()
    readable = SchemaChecks(FEATURES).check(PATH, pa.schema(list(fields.items()), metadata), findings)
    return readable, [(problem.code, problem.cause) for problem in findings.problems()]


def test_right_types():
    assert check() == ([ACTION, "reward", "done", "grid"], [])
    variable = {ACTION: pa.list_(pa.float32()), "grid": pa.large_list(pa.list_(pa.float64(), 3))}
    assert check(variable)[1] == [], "how long the rows are shows only in the values"


@pytest.mark.parametrize(
    ("column", "stored", "code"),
    [
        (ACTION, pa.list_(pa.float64(), 2), "feature-dtype"),
        (ACTION, pa.list_(pa.float32(), 3), "feature-shape"),
        (ACTION, pa.float32(), "feature-shape"),
        (ACTION, pa.string(), "feature-dtype"),
        ("reward", pa.int64(), "feature-dtype"),
        ("grid", pa.list_(pa.list_(pa.float64(), 3), 3), "feature-shape"),
        (FRONT_IMAGE, pa.binary(), "feature-dtype"),
        (FRONT_IMAGE, pa.struct([("path", pa.string())]), "feature-dtype"),
    ],
)
def test_wrong_types(column, stored, code):
    readable, problems = check({column: stored})
    assert [found for found, _ in problems] == [code]
    assert column in problems[0][1]
    assert str(PATH) in problems[0][1]
    assert column not in readable


def test_missing_and_surplus_columns():
    assert check(dropped=[ACTION, FRONT_IMAGE])[1] == [
        ("parquet-columns", f"{PATH}: it lacks the columns {ACTION}, {FRONT_IMAGE}")
    ]
    assert check({"force": pa.float32()})[1][0][0] == "surplus-column"


class TestHuggingFaceList:
    """``List`` is how datasets>=4 spells ``Sequence``; datasets 3.6 cannot read it."""

    def test_ours_and_none(self):
        assert check(metadata=huggingface_metadata({ACTION: FEATURES[ACTION]}))[1] == []
        assert check(metadata={"huggingface": 'not JSON, but with "List"'})[1] == []
        assert check(metadata={"pandas": '{"_type": "List"}'})[1] == []

    @pytest.mark.parametrize(
        "feature",
        [
            {"feature": {"dtype": "float32", "_type": "Value"}, "length": 2, "_type": "List"},
            {"nested": [{"_type": "List", "feature": {"dtype": "float32", "_type": "Value"}}]},
        ],
    )
    def test_theirs(self, feature):
        ((code, cause),) = check(metadata={"huggingface": json.dumps({"info": {"features": {ACTION: feature}}})})[1]
        assert code == "hf-list-feature"
        assert "datasets 3.6" in cause

    def test_a_feature_that_is_called_list(self):
        names = {"List": {"dtype": "float32", "_type": "Value"}, "x": {"_type": "Sequence", "names": ["List"]}}
        assert check(metadata={"huggingface": json.dumps({"info": {"features": names}})})[1] == []


def test_every_file_of_a_wrong_schema_is_counted():
    checks, findings = SchemaChecks({**AUX_FEATURES}), FoldedFindings()
    schema = pa.schema([(name, pa.float64()) for name in AUX_FEATURES])
    for number in range(100):
        checks.check(Path(f"{number}.parquet"), schema, findings)
    (problem,) = findings.problems()
    assert "(500 in all)" in problem.cause
    assert math.prod(feature.shape[0] for feature in AUX_FEATURES.values()) == 1
