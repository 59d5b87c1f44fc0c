"""Formats of MLflow's UI that are not public API, in one place. What is not understood falls back to plain links."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any


def table(target: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, dict[str, str]]:
    """Rows as `MlflowClient.log_table` lays them out (pandas ``orient="split"``), and the tag that makes the UI show
    them. All rows have the keys of the first one."""
    columns = list(rows[0]) if rows else []
    content = {"columns": columns, "data": [[row[column] for column in columns] for row in rows]}
    return json.dumps(content), {"mlflow.loggedArtifacts": json.dumps([{"path": target, "type": "table"}])}
