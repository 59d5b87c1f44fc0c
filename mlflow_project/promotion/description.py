"""What MLflow's pages of a promotion's run and of the registered version say, in Markdown."""

from __future__ import annotations

from typing import Any

from mlflow_project.comparison.episodes import success_words
from mlflow_project.markdown import plain
from mlflow_project.promotion.judge import EVIDENCE, Judgement
from mlflow_project.tracking import ui
from mlflow_project.vocabulary import COMPARISON_PAGE


def description(judgement: Judgement, experiment: str, run: str) -> str:
    """The verdict, the success rate with its interval, links, and the finding of each rule.

    Args:
        experiment, run: MLflow's ids of the promotion's run, or placeholders for them.
    """
    evaluation = judgement.candidate.evaluation
    lines = [f"**{plain(judgement.verdict)}** Success: {success_words(evaluation.success)} episodes"]
    lines[0] += f" of {plain(evaluation.task)} (95 % interval)." if evaluation.task else " (95 % interval)."
    links = {
        "its evaluation": ui.run_link("", evaluation.experiment, evaluation.run),
        "its comparison": ui.artifact_link("", evaluation.experiment, evaluation.sweep, COMPARISON_PAGE),
        "the promotion": ui.run_link("", experiment, run),
        "all evidence": ui.artifact_link("", experiment, run, EVIDENCE),
    }
    lines += ["", ", ".join(f"[{text}]({link})" for text, link in links.items()), ""]
    for ruling in judgement.rulings:  # a list: the registry's page shows tables without space between the columns
        mark = "passed" if ruling.passed else "refused"
        lines.append(f"- **{plain(ruling.rule)}** {mark}: {plain(ruling.because)}")
    return "\n".join(lines) + "\n"


def run_metrics(judgement: Judgement) -> dict[str, float]:
    """The metrics of the promotion's run: the candidate's success, the champion's on the same seeds, the rules."""
    success = judgement.candidate.evaluation.success
    metrics = {
        "gate/success_once": success.rate,
        "gate/success_low": success.low,
        "gate/success_high": success.high,
        "gate/episodes": float(success.n),
        "gate/rules_passed": float(sum(ruling.passed for ruling in judgement.rulings)),
        "gate/rules": float(len(judgement.rulings)),
        "gate/chosen_from": float(judgement.family.size),
    }
    opponent = judgement.champion
    if opponent is not None and (evidence := opponent.evidence(judgement.candidate.evaluation)).successes:
        metrics["gate/champion_success_once"] = sum(evidence.successes.values()) / len(evidence.successes)
    return metrics


def run_params(judgement: Judgement, name: str) -> dict[str, Any]:
    """The params of the promotion's run: what is promoted, to what, and what is asked of it."""
    demands = judgement.demands
    asked = {"min_success": demands.min_success, "require": demands.require, "margin": demands.margin}
    asked |= {"alpha": demands.alpha, "every_task": demands.every_task, "training_seeds": demands.training_seeds}
    return {"checkpoint": judgement.checkpoint, "model": name, **asked}
