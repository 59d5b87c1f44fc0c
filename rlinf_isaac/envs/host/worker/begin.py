"""The beginning of a worker's script (`server.py` here and of IsaacLab), which runs in another interpreter.

A script takes this module by its path (`runpy`), because our package is not importable there until `begin` has loaded
it. Only the standard library is needed.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def begin(main: Callable[[dict[str, Any], Connection], None]) -> None:
    """Call `main` with the settings of the command line and this process's end of the connection."""
    _load_package()
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    settings = json.loads(sys.argv[1])
    main(settings, Connection(settings["socket"]))


def _load_package() -> None:
    package = Path(__file__).parents[3]
    spec = importlib.util.spec_from_file_location(
        package.name, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[package.name] = module
    spec.loader.exec_module(module)


def _exit_with_parent() -> None:
    """Exit when the parent ends, even in the middle of a step. Nothing is written to stdin, so reading it blocks until
    then. The descriptor is read, not `sys.stdin`: a reader holds the lock of that, and processes that an environment
    forks would wait for it for ever."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)
