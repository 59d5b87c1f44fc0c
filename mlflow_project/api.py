"""The Python API (docs/python_api.md): what the verbs do, as functions that return values and data frames.

    import mlflow_project.api as ri

    run = ri.train("hf://lerobot/pusht", preset="tiny", steps=400)
    episodes = ri.evaluate(run, episodes=20)
    ri.compare(episodes).frame()

A function takes the options of its verb as keywords (``batch_size=16`` for ``--batch-size 16``), checks what the verb
checks, and records what the verb records. What is wrong is raised as `InvalidJob`, all at once. The names of
``rlinf_isaac`` are here, too. Neither torch nor mlflow nor pandas is imported before a function needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project._api.judging import compare, ingest, plan, rows
from mlflow_project._api.options import Company, settings_of
from mlflow_project._api.results import Compared, Promoted, Run, arm_words, noted, run_id_of
from rlinf_isaac.api import Policy, checking, load_bundle, load_config, make_env, open_dataset
from rlinf_isaac.ground.errors import BundleError, DatasetError, InvalidJob, Problem
from rlinf_isaac.ground.hub import is_hub

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pandas import DataFrame

    from mlflow_project._api.robot import RobotPolicy

__all__ = [
    "BundleError",
    "Compared",
    "DatasetError",
    "InvalidJob",
    "Policy",
    "Problem",
    "Promoted",
    "Run",
    "check",
    "compare",
    "demos",
    "evaluate",
    "ingest",
    "load_bundle",
    "load_config",
    "load_policy",
    "make_env",
    "open_dataset",
    "plan",
    "promote",
    "push",
    "rows",
    "train",
]


def check(verb: str, **options: Any) -> list[Problem]:
    """What `doctor` would find about a planned job: nothing is started, written or recorded.

    Args:
        verb: main, demos, sft, eval or rl.
        options: of the verb.

    Returns:
        Errors and warnings; an empty list where the job may start.
    """
    import importlib

    from mlflow_project.cli.doctor import JOBS
    from rlinf_isaac.preflight.findings import Findings

    if verb not in JOBS:
        cause = f"there are no checks of {verb!r}"
        return [Problem("unknown-verb", cause, f"name one of {', '.join(JOBS)}")]
    findings = Findings()
    with findings.collect():
        settings = settings_of(verb, options)
        Company.taken_from(settings).check(findings)
        importlib.import_module(f"mlflow_project.cli.{verb}").check(findings, quick=True, **settings)
    return findings.problems


def demos(**options: Any) -> Run:
    """Record demonstrations of a scripted expert; the options are those of `rlinf-isaac demos`.

    Returns:
        The run; its `Run.path` is the dataset, which `train` takes.

    Raises:
        InvalidJob: with all that keeps it from starting.
    """
    from mlflow_project.cli.demos import check as check_demos
    from rlinf_isaac.jobs.options import interpreter

    settings = settings_of("demos", options)
    company = Company.taken_from(settings)
    with checking() as findings:
        company.check(findings)
        config = check_demos(findings, **settings)
    from mlflow_project.tracked import demos as tracked

    with company.at_work(), noted() as runs:
        roots = tracked.run_all(config, settings["output"], interpreter(settings["env_python"]))
    return Run.of(runs, "demos", roots[0])


def train(dataset: str | Path | Run, **options: Any) -> Run:
    """Fine-tune a policy on a LeRobot dataset; the options are those of `rlinf-isaac sft`.

    The same call continues an interrupted training, with the same result as an undisturbed one.

    Args:
        dataset: a directory, a repo id, ``hf://org/name``, or the run of `demos`.
        options: of `sft`: ``preset``, ``base``, ``steps``, ``batch_size``, ``lr``, ``device``, ``overrides``, ...

    Returns:
        The run; its `Run.path` is the directory of the checkpoints, one per step.

    Raises:
        InvalidJob: with all that keeps it from starting.
        TrainingDiverged: the loss became NaN.
    """
    from mlflow_project.cli import sft as verb
    from rlinf_isaac.jobs import engine as engines
    from rlinf_isaac.jobs import sft as jobs
    from rlinf_isaac.jobs.options import to_overrides
    from rlinf_isaac.preflight.checkpoints import check_carried

    settings = settings_of("sft", {"dataset": dataset, **options})
    company = Company.taken_from(settings)
    output, upload_weights = settings.pop("output"), settings.pop("upload_weights")
    with checking() as findings:
        company.check(findings)
        checked = verb.check(findings, output=output, **settings)
    assert checked is not None
    root, *mixed_with = checked.datasets
    suffix = engines.suffix(settings["engine"])
    job = jobs.plan(checked.config, root, checked.norm_stats, output, suffix, checked.base, mixed_with)
    with checking() as findings:
        findings.add(check_carried(job, to_overrides(settings, jobs.KEYS, settings["overrides"])))
    from mlflow_project.tracked import sft as tracked

    with company.at_work(), noted() as runs:
        checkpoints = tracked.run(job, output, upload_weights, engines.chosen_engine(settings), checked.allowed)
    return Run.of(runs, "sft", checkpoints)


def evaluate(checkpoints: str | Path | Run, **options: Any) -> DataFrame:
    """Evaluate one or several checkpoints on the same seeds; the options are those of `rlinf-isaac eval`.

    Args:
        checkpoints: the run of `train` or its id, a directory of checkpoints, one checkpoint, ``models:/name@alias``,
            or ``hf://org/name``.
        options: of `eval`: ``episodes``, ``ckpt_steps``, ``first_seed``, ``num_envs``, ``videos``, ``overrides``, ...

    Returns:
        One row per checkpoint and episode, as of `rows`; ``frame.attrs["run"]`` is the `Run`, and `compare`, `promote`
        and `push` take the frame in its place.

    Raises:
        InvalidJob: with all that keeps it from starting, mismatches with the training among it.
    """
    from mlflow_project.cli.eval import check as check_eval
    from rlinf_isaac.jobs.engine import chosen_engine

    root = str(checkpoints.path if isinstance(checkpoints, Run) else checkpoints)
    settings = settings_of("eval", {"ckpt_root": root, **options})
    company = Company.taken_from(settings)
    output, upload_weights = settings.pop("output"), settings.pop("upload_weights")
    with checking() as findings:
        company.check(findings)
        job = check_eval(findings, output=output, **settings)
    assert job is not None
    from mlflow_project.tracked import evaluation as tracked

    with company.at_work(), noted() as runs:
        swept = tracked.run(job, output, upload_weights, chosen_engine(settings))
    return Compared(swept.comparison, Run.of(runs, "eval", output / "eval")).rows()


def promote(subject: Any, *, arms: Mapping[str, Sequence[Any]] | None = None, **options: Any) -> Promoted:
    """Make a checkpoint the champion of the model registry, if it passes the gate; as `rlinf-isaac promote`.

    Args:
        subject: a run (as of `rows`), whose best checkpoint is taken, or a checkpoint's directory.
        arms: for ``training_seeds``: ``candidate`` and ``champion`` -> the runs of their trainings; as ``--arm``.
        options: of `promote`: ``name``, ``min_success``, ``require``, ``margin``, ``training_seeds``, ``dry_run``, ...

    Returns:
        How it ended, and what each rule says. A refusal is no error: look at `Promoted.passed`.

    Raises:
        InvalidJob: with all that keeps the gate from judging.
    """
    from mlflow_project.promotion.judge import Judgement
    from mlflow_project.tracked import promote as tracked

    settings = settings_of("promote", {"subject": run_id_of(subject), **options})
    if arms is not None:
        settings["arm"] = arm_words(arms)
    company = Company.taken_from(settings)
    output, _ = settings.pop("output"), settings.pop("rollback")
    with checking() as findings:
        job = tracked.check(findings, **settings)
    assert job is not None
    judged: list[Judgement] = []
    with company.at_work():
        promotion = tracked.run(
            job, output, lambda line: None, lambda each: judged.append(each) if isinstance(each, Judgement) else None
        )
    return Promoted(promotion, job.name, judged[-1] if judged else None)


def push(subject: Any, repo: str, **options: Any) -> str:
    """Upload a checkpoint to the Hugging Face Hub with a card made of its evidence; as `rlinf-isaac push`.

    Args:
        subject: a run (as of `rows`), a checkpoint's directory, or ``models:/name@alias``.
        repo: ``hf://org/name``.
        options: of `push`: ``private``, ``revision``, ``license``, ``dry_run``, ...

    Returns:
        ``hf://org/name@commit``; in a dry run the text of the card.

    Raises:
        InvalidJob: with all that keeps it from starting: no login, no rights, no evidence, ...
    """
    from mlflow_project.tracked import push as tracked

    settings = settings_of("push", {"subject": run_id_of(subject), "repo": repo, **options})
    company = Company.taken_from(settings)
    output = settings.pop("output")
    with checking() as findings:
        job = tracked.check(findings, **settings)
    assert job is not None
    if settings["dry_run"]:
        return job.card
    with company.at_work():
        return tracked.run(job, output, lambda line: None)


def load_policy(uri: Any, *, device: str = "auto", task: str = "auto", assume: str = "none") -> RobotPolicy:
    """The policy of a checkpoint, after the checks of `serve`; it acts in an environment and answers a robot.

    Args:
        uri: a bundle's directory, ``models:/name@alias``, ``m-...``, ``hf://org/name``, a run's id or a `Run` (its last
            checkpoint).
        device: torch device; ``auto``: that of the checkpoint's job.
        task: the task of a checkpoint of several.
        assume: facts about the training that the checkpoint does not record, as in ``serve --assume``.

    Raises:
        InvalidJob: with all that keeps the checkpoint from being run as it was trained.
    """
    from mlflow_project.serving.resolve import resolve_model
    from rlinf_isaac.jobs.serving import plan

    with checking() as findings:
        name = str(uri.id if isinstance(uri, Run) else uri)
        place = name if is_hub(name) or Path(name).exists() else _located(name)
        job = plan(findings, resolve_model(place), device, assume, task)
    assert job is not None
    from mlflow_project._api.robot import RobotPolicy

    return RobotPolicy(*job)


def _located(name: str) -> str:
    """The directory of a model or of the last checkpoint of a run that the store knows; other names as they are, for
    the check that says that nothing is there."""
    from mlflow_project.lineage.chain_store import MODEL_ID, VERSION
    from mlflow_project.serving.base_source import locate_base
    from mlflow_project.vocabulary import RUN_ID

    known = VERSION.fullmatch(name) or MODEL_ID.fullmatch(name) or RUN_ID.fullmatch(name)
    return str(locate_base(name).path) if known else name
