"""A stock machine: nothing set that would hide what others meet when they install.

    python .ci/stock.py DIRECTORY COMMAND     runs a line of shell there as on such a machine, with this Python

Of this machine's settings only those are kept by which the package index is reached: certificates and proxies.
Configuration files of pip and uv, local wheels, further indexes and the machine's own constraints are not.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

KEPT = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")


def environment(home: str, path: str = os.defpath) -> dict[str, str]:
    """All that is set on a stock machine whose home directory is `home`."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    unset = {"PIP_CONFIG_FILE": os.devnull, "UV_NO_CONFIG": "1", "UV_PYTHON_DOWNLOADS": "never"}
    quiet = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    return {"PATH": path, "HOME": home, "LANG": "C.UTF-8", **unset, **quiet, **kept}


def find_python(version: str) -> str | None:
    """An interpreter of this version: on the PATH, or one of pyenv's that is not activated."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    for python in (f"python{version}", *map(str, sorted(root.glob(f"versions/{version}.*/bin/python")))):
        try:
            subprocess.run([python, "-c", "import ensurepip"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    return None


def main() -> None:
    """Run the line; its exit status is this one's."""
    directory, command = sys.argv[1:]
    path = f"{sys.base_prefix}/bin:{os.defpath}"
    print(command, flush=True)
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(["bash", "-ec", command], cwd=directory, env=environment(home, path))
    raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
