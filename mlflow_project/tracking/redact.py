"""Passwords and tokens are taken out of whatever leaves the process as text: terminal, journal, tags, error messages.

Journals and tags are cleaned by structure alone (`clean_urls`): what stands where a URL has its credentials. A password
that is an ordinary word must not eat that word everywhere else. What a person reads on the terminal is cleaned of the
very values as well (`redact`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

HIDDEN = "***"
_SECRET_NAME = re.compile(r"pass(word|wd|phrase|file)?$|secret|token|api_?key|access_?key|credential|signature", re.I)
_SECRET_QUERY = re.compile(rf"{_SECRET_NAME.pattern}|^user(name)?$|^sig$|^auth", re.I)
_USERINFO = re.compile(r"(?<=://)[^\s/\"'<>]*@")
_QUERY_VALUE = re.compile(
    r"(?<=[?&])((?:[\w.-]*(?:pass(?:word|wd|phrase)?|secret|token|api_?key|access_?key|credential|signature))|sig)"
    r"=[^&\s\"'<>\\]+",
    re.I,
)
_SHORTEST = 8
"""Characters. A shorter value is no secret worth the name, and may well be a word of ours."""


def without_credentials(uri: str) -> str:
    """`uri` without user, password, and what its query has of them: journals are files that people pass on."""
    try:
        parts = whole = urlsplit(uri)
    except ValueError:  # a bracket in a password
        return clean_urls(uri)
    if "@" in parts.netloc:
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    kept = [(key, value) for key, value in pairs if not _SECRET_QUERY.search(key)]
    if kept != pairs:
        parts = parts._replace(query=urlencode(kept))
    return uri if parts == whole else urlunsplit(parts)


def has_credentials(uri: str) -> bool:
    """Whether a password or the like stands in `uri`."""
    return without_credentials(uri) != uri


def clean_urls(text: str) -> str:
    """`text` with `HIDDEN` where a URL in it has credentials."""
    if "://" not in text:
        return text
    return _QUERY_VALUE.sub(rf"\1={HIDDEN}", _USERINFO.sub(f"{HIDDEN}@", text))


def redact(text: str) -> str:
    """`clean_urls`, and also without the passwords and tokens that this process has in its environment."""
    text = clean_urls(text)
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    return text


def _secrets() -> Iterator[str]:
    """Values of variables that are called like a secret, and the password of the tracking URI, in each spelling."""
    values = [value for name, value in os.environ.items() if _SECRET_NAME.search(name)]
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    values += [userinfo.partition(":")[2][:-1] for userinfo in _USERINFO.findall(uri)]
    values += [value for key, value in parse_qsl(uri.partition("?")[2]) if _SECRET_NAME.search(key)]
    for value in values:
        for spelling in {value, quote(value, safe=""), unquote(value)}:
            if len(spelling) >= _SHORTEST:
                yield spelling
