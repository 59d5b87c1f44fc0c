from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

import mlflow_project.api as ri
from mlflow_project.comparison.compare import compare
from mlflow_project.tracked.plan import seconds_per_episode
from mlflow_project.tracking.pace import spell_time
from mlflow_project.vocabulary import VERB_TAG
from rlinf_isaac.jobs.plan import Measured
from rlinf_isaac.stats import sequential_power
from rlinf_isaac.stats.power import Discordance, paired_episodes, unpaired_episodes

PAGE, JUDGED = ((Path(__file__).parents[3] / "docs" / name).read_text() for name in ("power.md", "rlinf_figures.md"))
SHOWN = re.compile(r"^```bash\nrlinf-isaac plan ([^\n]*)\n```\n\n```text\n(.*?)```", re.MULTILINE | re.DOTALL)
PRINTED = dict(SHOWN.findall(PAGE + JUDGED)).items()
FIGURES = re.findall(r"^print\((.*)\)  # (-?[0-9.]+)", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("options", "printed"), PRINTED, ids=[options for options, _ in PRINTED])
def test_the_pages_show_what_is_printed(invoke, options, printed):
    assert invoke("plan", *options.split()).stdout == printed


def test_the_figures_of_the_page_are_computed():
    names = {}
    exec("\n".join(re.findall(r"^(?:from rlinf_isaac.*|rates = .*)$", PAGE, re.MULTILINE)), names)
    assert len(FIGURES) >= 5
    for expression, figure in FIGURES:
        assert f"{eval(expression, names):.{len(figure.partition('.')[2])}f}" == figure, expression


def codes(result):
    return [line.split()[1] for line in result.stderr.splitlines() if line.startswith("error ")]


def test_it_says_what_the_tests_need(invoke):
    found = json.loads(invoke("plan", "--rates", "0.86,0.95", "--correlation", "0.3", "--json").stdout)
    rates = 0.86, 0.95
    expected = [paired_episodes(Discordance.of(rates, phi), 0.05) for phi in (0.3, 0)]
    sequential = sequential_power.episodes(Discordance.of(rates[::-1], 0.3))
    assert [row["episodes"] for row in found["rows"]] == [*expected, sequential, unpaired_episodes(rates, 0.05)]
    assert f"by {expected[0]} episodes of each on the same seeds" in found["sentence"]


def test_more_checkpoints_and_fewer_episodes(invoke):
    text = invoke("plan", "--baseline", "0.8", "--difference", "0.1", "--checkpoints", "4", "--episodes", "64").stdout
    assert "alpha 0.05 / 6 pairs of 4 checkpoints" in text
    assert "power at 64" in text
    assert "by 64 episodes of each with a probability of" in text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", ["plan-rates"]),
        ("--baseline 0.8", ["plan-rates"]),
        ("--baseline 0.8 --difference 0.3", ["plan-rates"]),
        ("--rates 0.8,0.8", ["plan-rates"]),
        ("--rates 0.8", ["plan-rates"]),
        ("--rates 0.8,x --power 2 --alpha nan --episodes 0 --checkpoints 1", ["plan-option"] * 5),
        ("--rates 0.8,0.9 --power 0.05", ["plan-option"]),
        ("--rates 0.9,0.1 --correlation 0.9", ["plan-correlation"]),
    ],
)
def test_what_cannot_be_answered_is_refused(invoke, options, expected):
    result = invoke("plan", *options.split())
    assert (result.exit_code, codes(result)) == (2, expected)


def test_a_run_gives_rates_and_correlation(invoke, store, tmp_path):
    rows = [("a", seed, seed % 10 != 0) for seed in range(40)] + [("b", seed, seed % 5 != 0) for seed in range(40)]
    table = tmp_path / "table.csv"
    lines = [f"lift,{seed},{policy},{str(solved).lower()}" for policy, seed, solved in rows]
    table.write_text("\n".join(["task,seed,policy,success", *lines]) + "\n")
    run = ri.ingest(table, output=tmp_path / "out")
    plan = ri.plan(run=run)
    assert plan.measured.names == ("a", "b")
    assert plan.rates == (0.9, 0.8)
    assert plan.rows[0].correlation == pytest.approx(2 / 3)
    assert plan.measured.seconds is None  # another tool's
    assert ri.plan(run=run, rates=(0.8, 0.7)).rates == (0.8, 0.7)
    assert "Measured of a and b" in invoke("plan", "--run", run).stdout


def test_the_pace_of_a_sweep_says_how_long_it_takes(evaluation, monkeypatch, invoke):
    comparison = compare([evaluation("s" * 40, 1), evaluation("s" * 30 + "t" * 10, 2)])
    info = SimpleNamespace(start_time=0, end_time=160_000)
    for verb, expected in (("eval", 2.0), ("main", None)):  # which did more than evaluate
        sweep = SimpleNamespace(info=info, data=SimpleNamespace(tags={VERB_TAG: verb}))
        assert seconds_per_episode(SimpleNamespace(get_run=lambda _, sweep=sweep: sweep), comparison) == expected
    monkeypatch.setattr("mlflow_project.tracked.plan.measured", lambda run: Measured(("a", "b"), (0.9, 0.8), 0.3, 2.0))
    first = invoke("plan", "--run", "0" * 32, "--checkpoints", "3").stdout.splitlines()[2]
    episodes = paired_episodes(Discordance.of((0.9, 0.8), 0.3), 0.05 / 3)
    assert first.split()[-2:] == [str(episodes), spell_time(episodes * 3 * 2)]
