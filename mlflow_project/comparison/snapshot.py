"""Pictures of a page, drawn by a browser without a window, where the machine has one."""

from __future__ import annotations

import logging
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

logger = logging.getLogger("mlflow_project")

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
"""Programs that are looked for: those that take Chromium's options."""
WIDTH, TALLEST = 1280, 16_000
"""Pixels of the picture; Chromium draws none that is taller."""
TIMEOUT_S = 120.0


def find_browser() -> str | None:
    """The path of a browser, or None."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


def take(browser: str, page: Path, png: Path, pdf: Path) -> bool:
    """Draw a whole page as PNG and PDF. False if the browser fails; why is logged.

    ``#snapshot`` at the end of its address tells the page that nothing is to be played, and that it shall say its
    height, in ``data-height`` of its first element.
    """
    address = page.absolute().as_uri() + "#snapshot"
    try:
        dom = _run(browser, f"--window-size={WIDTH},1000", "--dump-dom", address)
        height = int(found[1]) if (found := re.search(rb'<html[^>]* data-height="(\d+)"', dom)) else 2000
        _run(browser, f"--window-size={WIDTH},{min(height, TALLEST)}", f"--screenshot={png.absolute()}", address)
        _run(browser, "--no-pdf-header-footer", f"--print-to-pdf={pdf.absolute()}", address)
    except (OSError, subprocess.SubprocessError) as error:
        logger.warning("%s could not draw the page: %s", browser, error)
        return False
    return png.is_file() and pdf.is_file()


def _run(browser: str, *arguments: str) -> bytes:
    with tempfile.TemporaryDirectory(prefix="rlinf-isaac-", ignore_cleanup_errors=True) as profile:
        command = [browser, "--headless", "--disable-gpu", "--hide-scrollbars", f"--user-data-dir={profile}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.append("--no-sandbox")  # Chromium refuses to start for root without it; the page is our own
        command += ["--virtual-time-budget=3000", *arguments]
        return subprocess.run(command, capture_output=True, check=True, timeout=TIMEOUT_S).stdout
