"""`convert`: torch and safetensors checkpoints into verified safetensors, or a complete bundle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, stdout, verb_session
from rlinf_isaac.jobs.convert import check

if TYPE_CHECKING:
    from rlinf_isaac.jobs.convert import ConvertJob

EXAMPLE = """\b
Example:
  rlinf-isaac convert --input full_weights.pt --output converted --dry-run
  rlinf-isaac convert --input /results/exp/checkpoints/global_step_30000 --output converted --dtype bf16
  rlinf-isaac convert --input full_weights.pt --output bundles/30000 --preset pi05 --norm-stats norm_stats.json
  mlflow run . -e convert -P input=full_weights.pt -P output=bundle"""


def switch(name: str, help: str) -> Callable[[options.Command], options.Command]:
    """A switch that is on: ``--name false`` turns it off."""
    return click.option(name, type=bool, default="true", show_default=True, help=help)


@click.command("convert", epilog=EXAMPLE)
@options.option("--input", "A .pt or .pth file, RLinf's global_step_N, a DCP directory, or safetensors.", None)
@options.option("--output", "Directory to write; it must not exist yet, unless this same command made it.", None)
@options.option("--max-shard-size", "Bytes per file, e.g. 5GB or 512MiB; none: one model.safetensors.", "none")
@click.option(
    "--dtype",
    type=click.Choice(["keep", "bf16", "fp16", "fp32"]),
    default="keep",
    show_default=True,
    help="Cast floating-point tensors of 16 to 64 bits; smaller ones mean nothing without their scales and stay.",
)
@options.option("--keep-dtype", "Patterns of tensors that are not cast, e.g. '*norm*,*.bias'.", "none")
@options.option("--include", "Patterns of the tensors to write; none: all.", "none")
@options.option("--exclude", "Patterns of tensors to leave out, e.g. 'value_head.*'.", "none")
@options.option("--strip-prefix", "Prefixes to remove from names. Wrappers (FSDP, DDP, compile) go anyway.", "none")
@options.option("--state-dict-key", "Where the state dict is, e.g. 'checkpoint.model'; '.': the whole file.")
@options.option("--norm-stats", "With --preset: write a complete bundle with these norm stats.", "none")
@options.option("--preset", "With --norm-stats: tiny, small, pi0, pi05 or a YAML file.", "none")
@options.flag("--dry-run", "Print what would be written, and stop.")
@switch("--verify", "Read the result and the source again with safetensors and torch, and compare every tensor.")
@switch("--hash-source", "Record the sha256 of the source, which takes one more reading of it.")
@options.flag("--force", "Replace an output of an earlier conversion.")
@options.overrides
@options.tracking
def command(**settings: Any) -> None:
    """Convert a checkpoint to safetensors, checked and in little memory.

    Nothing in the checkpoint is executed: what wants to be is refused by name. Names, ties and checksums are checked,
    the state dict is found, wrappers of FSDP, DDP and torch.compile are removed from names, tied tensors are stored
    once. The output appears whole or not at all, with a record of its source (conversion.json).
    """
    with verb_session():
        with preflight() as findings:
            job = check(findings, **settings, say=stdout.print)
        assert job is not None
        show_plan(job)
        if not settings["dry_run"]:
            from mlflow_project.tracked import convert as tracked

            tracked.run(job, verify=settings["verify"], hash_source=settings["hash_source"], say=stdout.print)


def show_plan(job: ConvertJob) -> None:
    """Print what will be written, from what."""
    from mlflow_project.cli._plan_view import show

    show(job.conversion)
    if job.bundle is not None:
        weights = job.bundle.conversion
        for text in (weights.plan.summary, ", ".join(weights.excluded) and f"excluded {', '.join(weights.excluded)}"):
            if text:
                stdout.print(f"bundle       {text}")
