from __future__ import annotations

import pytest

from mlflow_project.comparison.compare import compare
from mlflow_project.comparison.tables import LONGEST, episode_tables, leaderboard_markdown, pair_table
from mlflow_project.tracking.recorder import LONGEST_TAG

GOOD, BAD = "s" * 40, "t" * 40


def test_the_tables(evaluation):
    found = compare([evaluation("sstd", 1), evaluation("stts", 2)])
    (rows,) = episode_tables(found)
    assert [row["step-1"] for row in rows] == ["success", "success", "timeout", "drop"]
    assert [row["solved by"] for row in rows] == [2, 1, 0, 1]
    assert [row["disagree"] for row in rows] == [False, True, False, True]
    (pair,) = pair_table(found)
    assert (pair["only first solved"], pair["only second solved"], pair["both solved"]) == (1, 1, 1)
    assert pair["correlation phi"] == pytest.approx(0)
    assert pair["p"] == 1


def test_markdown_in_names_stays_text(evaluation):
    name = "a|b](http://x)\n<b>{{run:" + "0" * 32 + "}}"
    text = leaderboard_markdown(compare([evaluation(GOOD, 1, name=name), evaluation(BAD, 2)]))
    assert "<b>" not in text
    assert "{{" not in text
    assert "](http" not in text
    assert all(line.count(" | ") == 8 for line in text.splitlines() if line.startswith("| ") and "rank" not in line)


def test_a_long_leaderboard_fits_the_tag_and_says_what_is_left_out(evaluation):
    many = [evaluation("st", step, run=f"{{{{run:{step:032x}}}}}") for step in range(1, LONGEST + 16)]
    text = leaderboard_markdown(compare(many))
    assert len(text) < LONGEST_TAG
    assert text.count("](#/experiments/1/runs/") == LONGEST
    assert "And 15 more" in text
