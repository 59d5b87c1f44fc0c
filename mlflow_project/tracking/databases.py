"""MLflow's addresses of sqlite databases."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

_SQLITE = "sqlite:///"


def sqlite_uri(path: Path) -> str:
    """URI of a database file. Only the characters with a meaning in SQLAlchemy's URLs are escaped, because MLflow also
    creates the parent directory of the escaped path, an empty directory beside the right one."""
    return _SQLITE + str(path.absolute()).replace("%", "%25").replace("?", "%3F")


def sqlite_path(uri: str) -> Path | None:
    """The file of a sqlite database; None for other stores and for a database in memory."""
    path = unquote(uri.removeprefix(_SQLITE).partition("?")[0])
    return Path(path) if uri.startswith(_SQLITE) and path not in ("", ":memory:") else None
