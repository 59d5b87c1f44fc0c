"""``python -m mlflow_project.cli VERB``: started by MLproject, so that the code of this very checkout runs."""

from mlflow_project.cli import cli

cli(prog_name="rlinf-isaac")
