"""What the launchers ``python -m mlflow_project.callbacks.<trainer>`` share."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rlinf_isaac.ground.errors import InvalidJob


def launched(work: Callable[[], Any]) -> None:
    """Do the work of a launcher; what is refused is printed, with the exit code 2."""
    try:
        work()
    except InvalidJob as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def run_script(trainer: str) -> None:
    """Run the script that the command line names, with the words behind it, as Python would.

    Raises:
        InvalidJob: it names none.
    """
    words = [word for word in sys.argv[1:] if word != "--"] if sys.argv[1:2] == ["--"] else sys.argv[1:]
    if not words or not Path(words[0]).is_file():
        cause = f"{words[0] if words else 'the command line'} is no script of {trainer}"
        cure = f"name its script first: python -m mlflow_project.callbacks.{trainer} SCRIPT ..."
        raise InvalidJob.of("no-trainer-script", cause, cure)
    sys.argv = words
    sys.path.insert(0, str(Path(words[0]).absolute().parent))
    runpy.run_path(words[0], run_name="__main__")
