"""``--report-to``: trackers that get the journal besides MLflow, and what keeps them from it. Imports nothing heavy."""

from __future__ import annotations

import netrc
import os
from importlib.util import find_spec
from urllib.parse import urlsplit

from rlinf_isaac.ground.errors import InvalidJob, Problem

VARIABLE = "RLINF_ISAAC_REPORT_TO"
"""Environment variable that holds what ``--report-to auto`` stands for."""
TENSORBOARD, WANDB = "tensorboard", "wandb"
TARGETS = (TENSORBOARD, WANDB)


def chosen(text: str) -> tuple[str, ...]:
    """The targets that a value of ``--report-to`` names, separated by commas or spaces; ``auto`` is what `VARIABLE`
    holds, ``none`` is none.

    Raises:
        InvalidJob: one of them is not known.
    """
    if text == "auto":
        text = os.environ.get(VARIABLE, "")
    words = list(dict.fromkeys(word.lower() for word in text.replace(",", " ").split() if word != "none"))
    unknown = [word for word in words if word not in TARGETS]
    if unknown:
        cause = f"--report-to: nothing is known of {', '.join(map(repr, unknown))}"
        raise InvalidJob.of(
            "unknown-tracker", cause, f"choose among {', '.join(TARGETS)}; MLflow always gets everything"
        )
    return tuple(words)


def problems(text: str) -> list[Problem]:
    """What keeps the chosen targets from being reported to."""
    try:
        targets = chosen(text)
    except InvalidJob as error:
        return list(error.problems)
    found = []
    for target in targets:
        spec = find_spec(target)
        if spec is None or spec.origin is None:  # a directory that W&B has made is a package without a file
            extra = " (pip install 'rlinf-isaac[wandb]')" if target == WANDB else ""
            cause = f"--report-to: {target} is not installed in this environment"
            found.append(Problem("tracker-not-installed", cause, f"install it{extra}, or leave it out"))
        elif target == WANDB and not _wandb_can_start():
            cause = "--report-to wandb: there is no API key, neither in WANDB_API_KEY nor in .netrc (`wandb login`)"
            cure = "log in, or set WANDB_MODE=offline and upload later with `wandb sync`"
            found.append(Problem("wandb-not-logged-in", cause, cure))
    return found


def _wandb_can_start() -> bool:
    if os.environ.get("WANDB_MODE", "online") in ("offline", "disabled", "dryrun") or os.environ.get("WANDB_API_KEY"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
