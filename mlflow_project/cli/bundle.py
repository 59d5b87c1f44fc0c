"""`bundle`: make a checkpoint bundle of OpenPI's, RLinf's, lerobot's or loose weights; verify or show one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, stdout, verb_session
from rlinf_isaac.config.reads import check_overrides
from rlinf_isaac.jobs.bundle import check
from rlinf_isaac.jobs.bundle_source import say_read
from rlinf_isaac.jobs.options import to_overrides

if TYPE_CHECKING:
    from rlinf_isaac.checkpoint.bundle import Bundle

EXAMPLE = """\b
Example:
  rlinf-isaac bundle make /results/exp/checkpoints/global_step_30000 --preset pi05 --norm-stats base/norm_stats.json
  rlinf-isaac bundle make /checkpoints/pi05_stack/30000 --norm-stats-mode identity
  rlinf-isaac bundle make outputs/train/checkpoints/030000 --assume "prompt='Stack.',control_hz=30"
  rlinf-isaac bundle verify result/isaaclab_openpi/bundles/exp/30000
  rlinf-isaac bundle show result/isaaclab_openpi/bundles/exp/30000
  mlflow run . -e bundle -P action=make -P source=/results/exp/checkpoints/global_step_30000"""


@click.command("bundle", epilog=EXAMPLE)
@click.argument("action", type=click.Choice(["make", "verify", "show"]))
@click.argument("source", type=click.Path(path_type=Path))
@options.option("--norm-stats", "make: norm_stats.json the weights were trained with; auto: the one in SOURCE.")
@click.option(
    "--norm-stats-mode",
    type=click.Choice(["none", "canonical", "identity"]),
    default="none",
    show_default=True,
    help="make: for norm stats with other keys than 'state' and 'actions', whether training normalised with them "
    "(canonical) or passed them over (identity). none refuses such a file.",
)
@options.option("--weights", "make: the weights' file or directory, where SOURCE holds several; auto: find them.")
@options.option("--dataset", "make: LeRobot dataset the weights were trained on, for the lineage.", "none")
@options.option("--preset", "make: tiny, small, pi0, pi05 or a YAML file; auto: the one whose shapes are the weights'.")
@options.task
@options.option("--step", "make: optimiser step; auto: from the directory's name.")
@options.option(
    "--asset-id",
    "make: where OpenPI and RLinf look for the norm stats, and which of several to take; auto: where they were found.",
)
@options.option(
    "--assume",
    "make: what SOURCE does not say of its training, as in \"prompt='Stack.',control_hz=20\"; recorded as assumed.",
    "none",
)
@options.option("--exclude", "make: patterns of tensors to leave out, e.g. 'value_head.*' of an RL checkpoint.", "none")
@options.option("--name", "make: directory under OUTPUT/bundles, one per training run; auto: the experiment's.")
@options.flag("--force", "make: replace an existing bundle.")
@options.output
@options.overrides
@options.tracking
def command(action: str, source: Path, output: Path, **settings: Any) -> None:
    """Make, verify or show a checkpoint bundle, the directory that eval, RLinf and OpenPI all read.

    make: SOURCE is a checkpoint of OpenPI (PyTorch, or JAX with the extra jax), RLinf (global_step_N, with or without
    full_weights.pt; its own img.*, llm.* names), lerobot (pi0, pi05), loose safetensors or a state dict, here or on the
    Hugging Face Hub (hf://org/name[/folder][@revision]). Weights, norm stats, step and asset id are inferred and
    printed; where two candidates disagree, it says so and stops. Names and shapes must be those of the architecture.
    What its own files say of the training goes before the preset; what nobody says is recorded as not known, and eval
    asks.

    verify: hash every file of the bundle SOURCE and compare its weights with its architecture. show: print its config,
    lineage and sizes without hashing the weights.
    """
    with verb_session():
        if action == "make":
            with preflight() as findings:
                job = check(findings, source=source, output=output, **settings, say=stdout.print)
            assert job is not None
            from mlflow_project.tracked import bundle as tracked

            _show_result(tracked.run(job, output, stdout.print))
        else:
            from mlflow_project.cli._bundle_view import show, verify

            with preflight() as findings:
                findings.add(check_overrides(f"bundle {action}", to_overrides({}, {}, settings["overrides"])))
            (verify if action == "verify" else show)(source)


def _show_result(bundle: Bundle) -> None:
    origin = bundle.config["source"]
    say_read(origin["files"], stdout.print)
    for title in ("stripped", "excluded"):
        if origin[title]:
            stdout.print(f"{title}     {', '.join(origin[title])}")
    stdout.print(f"bundle       {bundle.path} sha256 {bundle.digest}")
    words = ["rlinf-isaac", "eval", "--ckpt-root", str(bundle.path.parent), "--ckpt-steps", str(bundle.step)]
    stdout.print(f"evaluate     {shlex.join(words)}")
