"""`dataset`: make a LeRobot dataset of HDF5 demonstrations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from mlflow_project.cli import _options as options
from mlflow_project.cli._session import preflight, stdout, verb_session
from rlinf_isaac.jobs.dataset import check, say_plan

EXAMPLE = """\b
Example:
  rlinf-isaac dataset import generated_dataset.hdf5 --prompt "Stack the red cube on the blue cube."
  rlinf-isaac dataset import a.hdf5 b.hdf5 --name both --state eef_pos,eef_quat,gripper_pos --prompt "Stack them." \\
      --cameras table_cam=observation.images.front,wrist_cam=observation.images.wrist
  rlinf-isaac dataset import image.hdf5 --mask train --fps 20 --prompt "Lift the cube."
  mlflow run . -e dataset -P action=import -P files=a.hdf5,b.hdf5 -P prompt="Stack them.\""""


@click.command("dataset", epilog=EXAMPLE)
@click.argument("action", type=click.Choice(["import"]))
@click.argument("files", nargs=-1, required=True)
@options.option(
    "--cameras",
    "Images to take, KEY=FEATURE,...; a KEY alone becomes observation.images.KEY. auto: every image; none: no image.",
)
@options.option("--state", "Keys of obs that make the state, joined in this order. auto: every vector of floats.")
@options.option("--action-key", "The array of a demonstration with the actions.", "actions")
@options.option("--fps", "Control rate in Hz; auto: the one in env_args, and there must be one.")
@options.option("--prompt", "Instruction of every episode; auto: the one in the file, and there must be one.")
@options.option("--mask", "Take the demonstrations of this list below /mask (robomimic's filter keys).", "none")
@click.option(
    "--failed",
    type=click.Choice(["keep", "drop"]),
    default="drop",
    show_default=True,
    help="Demonstrations that the file marks as failed.",
)
@options.option("--name", "Directory under OUTPUT/datasets; auto: the name of the first file.")
@options.output
@options.tracking
def command(action: str, output: Path, **settings: Any) -> None:
    """Make a LeRobot v2.1 dataset of HDF5 demonstrations.

    import: FILES are HDF5 demonstrations of IsaacLab (record_demos, Mimic's generate_dataset) or robomimic. Every file
    is checked whole before anything is written, the dataset appears when it is complete, and the same command keeps
    one that is there. Which demonstration became which episode, whether it succeeded, and the sha256 of the files are
    in meta/provenance.json. Needs the extra hdf5.
    """
    with verb_session():
        from mlflow_project.tracking.progress import ProgressView

        with preflight() as findings, ProgressView() as view:
            job = check(findings, output=output, show=view.show, **settings)
        assert job is not None
        say_plan(job, stdout.print)
        from mlflow_project.tracked import dataset as tracked

        stdout.print(f"dataset      {tracked.run(job, output)}")
