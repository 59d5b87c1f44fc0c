"""The model card of a checkpoint: ``README.md`` with the front matter that the Hub reads, made from the evidence.

Nothing in it is a default: what is not recorded is left out of the front matter, and is ``not known`` in the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlflow_project.comparison.evaluations import Evaluation
from mlflow_project.publishing.evidence import Evidence
from mlflow_project.publishing.text import UNKNOWN, plain, table, value_or_unknown
from mlflow_project.publishing.use import usage
from mlflow_project.vocabulary import DATASET_HUB_TAG
from rlinf_isaac.checkpoint import facts
from rlinf_isaac.checkpoint.bundle import Bundle
from rlinf_isaac.data.norm_stats import from_json

LIBRARY = "rlinf-isaac"
PIPELINE = "robotics"
METRIC = "success_rate"
MOST_ROWS = 10
"""Most further evaluations, and most tasks, that the text lists."""


def front_matter(evidence: Evidence, name: str, license: str | None) -> Any:
    """The front matter as `huggingface_hub.ModelCardData`, with the success rate as ``model-index``.

    Args:
        evidence: what is known of the checkpoint.
        name: of the model.
        license: the Hub's identifier of a licence; None if nobody has said one.
    """
    from huggingface_hub import EvalResult, ModelCardData

    results = []
    if (evaluation := evidence.evaluation) is not None:
        played = [(name, evaluation.of_task(name)) for name in evaluation.tasks] or [("", evaluation.rows)]
        success = evaluation.success
        environment = evaluation.settings.get("environment") or {}
        task = str(environment.get("task") or evidence.bundle.job.get("env", {}).get("task") or ", ".join(dict(played)))
        results.append(
            EvalResult(
                task_type=PIPELINE,
                task_name="robot manipulation",
                dataset_type=task,
                dataset_name=f"{task}, {environment.get('backend', 'simulator not recorded')}",
                dataset_args={"episodes": success.n, "seeds": seeds_text(evaluation)},
                metric_type=METRIC,
                metric_name="success rate",
                metric_value=round(success.rate, 6),
                metric_args={"wilson_95_low": round(success.low, 6), "wilson_95_high": round(success.high, 6)},
            )
        )
    family = "pi05" if evidence.bundle.job.get("model", {}).get("pi05") else "pi0"
    optional: dict[str, Any] = {
        "license": license,
        "base_model": evidence.base_model,
        "datasets": list(evidence.datasets) or None,
    }
    return ModelCardData(
        library_name=LIBRARY,
        pipeline_tag=PIPELINE,
        tags=["robotics", "vision-language-action", family, "openpi", "rlinf-isaac"],
        model_name=name,
        eval_results=results or None,
        **{key: value for key, value in optional.items() if value is not None},
    )


def model_card(evidence: Evidence, repo: str, license: str | None = None, revision: str | None = None) -> str:
    """The text of ``README.md`` for the repository ``org/name``.

    The front matter is read again with huggingface_hub's own classes, as the Hub reads it.

    Raises:
        ValueError: the front matter does not survive that, which is a bug.
    """
    from huggingface_hub import ModelCard

    name = repo.rpartition("/")[2]
    data = front_matter(evidence, name, license)
    body = "\n".join([f"# {plain(name)}", "", *_sections(evidence, repo, license, revision)])
    text = f"---\n{data.to_yaml()}\n---\n\n{body.rstrip()}\n"
    read = ModelCard(text, ignore_metadata_errors=False).data
    if getattr(read, "eval_results", None) != data.eval_results or read.to_dict() != data.to_dict():
        raise ValueError(f"the front matter of {repo} is read as {read.to_dict()}, not as {data.to_dict()}")
    return text


def seeds_text(evaluation: Evaluation) -> str:
    """The seeds of an evaluation: ``5000-5049``, or all of them where they have gaps and are few."""
    seeds = sorted({row.seed for row in evaluation.rows})
    if len(seeds) == seeds[-1] - seeds[0] + 1:
        return f"{seeds[0]}-{seeds[-1]}" if len(seeds) > 1 else str(seeds[0])
    shown = ", ".join(map(str, seeds[:MOST_ROWS]))
    return shown if len(seeds) <= MOST_ROWS else f"{shown}, ... {seeds[-1]} ({len(seeds)} in all)"


def _sections(evidence: Evidence, repo: str, license: str | None, revision: str | None) -> Iterator[str]:
    yield from _what(evidence)
    yield from ("", "## Success", "", *_success(evidence))
    yield from ("", "## How to use it", "", *usage(evidence, repo, revision))
    yield from ("", "## Inputs and outputs", "", *_inputs(evidence.bundle))
    yield from ("", "## Where it comes from", "", *_lineage(evidence))
    yield from ("", "## Norm stats", "", *_norm_stats(evidence.bundle))
    yield from ("", "## What is not known", "", *_not_known(evidence, license))


def _what(evidence: Evidence) -> Iterator[str]:
    bundle, job = evidence.bundle, evidence.bundle.job
    model, trained_by = job.get("model", {}), bundle.config.get("trained_by", "sft")
    family = "pi0.5" if model.get("pi05") else "pi0"
    how = {"sft": "supervised fine-tuning", "rl": "reinforcement learning"}.get(trained_by, trained_by)
    task = job.get("env", {}).get("task", UNKNOWN)
    if bundle.config.get("source"):
        how = "training elsewhere, imported"
    yield (
        f"A {family} policy ({bundle.manifest.parameters:,} parameters, preset {plain(str(job.get('preset')))}) for the"
        f" task `{task}`: step {bundle.step} of {how}."
    )
    prompts = list((bundle.config.get("prompts") or {}).values())
    yield f"Instructions: {', '.join(map(repr, map(plain, prompts))) if prompts else UNKNOWN}."


def _success(evidence: Evidence) -> Iterator[str]:
    evaluation, comparison = evidence.evaluation, evidence.comparison
    if evaluation is None:
        yield f"Success rate: {UNKNOWN}. This checkpoint was published without an evaluation."
        if evidence.mismatched:
            yield f"({evidence.mismatched} evaluations that were run in spite of a mismatch do not count.)"
        return
    rate = evaluation.success
    yield (
        f"**{100 * rate.rate:.1f} %** of {rate.n} episodes in simulation; 95 % Wilson interval"
        f" {100 * rate.low:.1f} to {100 * rate.high:.1f} %."
    )
    yield ""
    environment = evaluation.settings.get("environment") or {}
    rows: list[tuple[str, Any]] = [
        ("episodes", rate.n),
        ("seeds", seeds_text(evaluation)),
        ("task", environment.get("task")),
        ("simulator", environment.get("backend")),
        ("scene and assets (sha256)", environment.get("assets")),
        ("renderer", environment.get("renderer")),
        ("longest episode", _steps(environment.get("max_episode_steps"), environment.get("control_hz"))),
        ("actions executed of each chunk", evaluation.settings.get("action_chunk")),
        ("denoising steps", evaluation.settings.get("denoise_steps")),
        ("seed of the policy's noise", evaluation.settings.get("policy_seed")),
        ("norm stats", evaluation.settings.get("norm_stats")),
    ]
    yield from table(("measured with", ""), [(name, value_or_unknown(value)) for name, value in rows])
    if evaluation.tasks:
        yield ""
        each = [(name, evaluation.of_task(name)) for name in evaluation.tasks[:MOST_ROWS]]
        cells = [(name, f"{sum(row.success for row in own)}/{len(own)}") for name, own in each]
        yield from table(("task", "solved"), cells)
    yield ""
    if evaluation.stopped_by_rule:
        yield "The number of episodes was decided by their outcomes, so that the rate and its interval are optimistic."
    if comparison is not None and len(comparison.standings) > 1:
        others = len(comparison.standings) - 1
        standing = next(each for each in comparison.standings if each.evaluation.run == evaluation.run)
        yield (
            f"Compared with {'another checkpoint' if others == 1 else f'{others} other checkpoints'} of the same"
            f" evaluation ({plain(comparison.method)}). {plain(comparison.verdict)} Its rank is {standing.place}."
            " Where a checkpoint was picked as the best of several, its rate is biased upwards, and the interval does"
            " not allow for that."
        )
    else:
        yield "It was not compared with other checkpoints in the same evaluation."
    if evidence.others:
        yield ""
        yield "Further evaluations of the same bytes, newest first:"
        yield ""
        played = [
            (f"{100 * each.success.rate:.1f} %", str(each.success.n), seeds_text(each), plain(each.sweep_name))
            for each in evidence.others[:MOST_ROWS]
        ]
        yield from table(("success", "episodes", "seeds", "evaluation"), played)


def _inputs(bundle: Bundle) -> Iterator[str]:
    config, job = bundle.config, bundle.job
    state, actions = facts.recorded(bundle, "state", "state_names"), facts.recorded(bundle, "actions", "action_names")
    policy, model = job.get("policy", {}), job.get("model", {})
    rows = [
        ("control rate", _with_unit(facts.recorded(bundle, "control_hz", "control_hz"), "Hz")),
        ("state", ", ".join(state) if state else UNKNOWN),
        ("actions", ", ".join(actions) if actions else UNKNOWN),
        ("actions in a chunk", f"{model.get('action_horizon')}, of which {policy.get('action_chunk')} are executed"),
        ("image size", _with_unit(model.get("vision", {}).get("image_size"), "pixels square")),
        ("tokenizer", value_or_unknown(", ".join(f"{k} {v}" for k, v in (config.get("tokenizer") or {}).items()))),
    ]
    yield from table(("", ""), rows)


def _lineage(evidence: Evidence) -> Iterator[str]:
    bundle = evidence.bundle
    rows = [("checkpoint", bundle.digest), ("weights", bundle.weights_digest)]
    rows += [(link, digest) for link, digest in sorted(bundle.lineage.items()) if digest]
    yield from table(("what", "sha256"), [(link, f"`{digest}`") for link, digest in rows])
    yield ""
    base = evidence.base
    started = "random weights" if not base and bundle.lineage.get("parent") is None else UNKNOWN
    if base:
        at = f" at {base['revision']}" if base.get("revision") else ""
        started = f"{plain(str(base['name']))}{at} ({base.get('parameters')})"
    elif bundle.config.get("source"):
        started = f"a checkpoint of another framework, {plain(str(bundle.config['source'].get('hub') or 'a file'))}"
    elif bundle.lineage.get("parent"):
        started = f"the checkpoint with the sha256 {bundle.lineage['parent']}"
    yield f"- Started from: {started}"
    trained_on = ", ".join(evidence.training.get(DATASET_HUB_TAG, "").split())
    recorded = "not from the Hub; its sha256 is above" if bundle.lineage.get("dataset") else UNKNOWN
    yield f"- Dataset: {trained_on or recorded}"
    yield f"- Trained with the commit: {evidence.commit or UNKNOWN}"
    versions = ", ".join(f"{name} {version}" for name, version in evidence.versions.items())
    yield f"- Versions: {versions or UNKNOWN}"


def _norm_stats(bundle: Bundle) -> Iterator[str]:
    stats = from_json(bundle.norm_stats_bytes, str(bundle.path))
    yield (
        f"Observations and actions are normalised with `{bundle.asset_id}/norm_stats.json`, which belongs to the"
        " weights (its sha256 is above). With any other file the policy acts wrongly, without an error."
    )
    yield ""
    for word, own in (("state", stats.state), ("actions", stats.actions)):
        mean = ", ".join(f"{value:.4g}" for value in own.mean)
        std = ", ".join(f"{value:.4g}" for value in own.std)
        yield f"- {word}: mean [{mean}], standard deviation [{std}]"


def _not_known(evidence: Evidence, license: str | None) -> Iterator[str]:
    bundle = evidence.bundle
    missing = [f"{facts.FACTS[name].meaning} ({name})" for name in facts.not_known(bundle)]
    assumed = [f"{name} = {facts.spell(value)}" for name, value in facts.assumed(bundle).items()]
    missing += [] if license else ["the licence"]
    missing += [] if evidence.evaluation else ["the success rate"]
    missing += [] if bundle.lineage.get("dataset") else ["the dataset"]
    missing += [] if bundle.config.get("env") else ["the simulator or robot on which the data was recorded"]
    missing.append("how it behaves on a real robot, unless the owner of this page says so")
    yield from (f"- {each}" for each in missing)
    if assumed:
        yield ""
        yield f"Assumed by a person, because nothing recorded it: {plain('; '.join(assumed))}."


def _steps(steps: Any, rate: Any) -> str | None:
    if not steps:
        return None
    return f"{steps} control steps" + (f" ({steps / rate:g} s)" if rate else "")


def _with_unit(value: Any, unit: str) -> str:
    return f"{value:g} {unit}" if isinstance(value, int | float) else UNKNOWN
