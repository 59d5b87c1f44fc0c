"""Removes passwords and tokens from all text that leaves the process: terminal, journal, tags, error messages.

Journals and tags are cleaned by structure only (`clean_urls` removes the credentials inside URLs): if a password is an
ordinary word, that word must stay everywhere else. On the terminal, `redact` also removes the known secret values.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import lru_cache
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
"""Length in characters of the shortest value that is hidden. A shorter secret is weak anyway, and may be an ordinary
word."""


def without_credentials(uri: str) -> str:
    """`uri` without user and password, also in its query. People pass journals on, so they must not contain these."""
    try:
        parts = whole = urlsplit(uri)
    except ValueError:  # e.g. the password contains a bracket
        return clean_urls(uri)
    if "@" in parts.netloc:
        parts = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    public = [(key, value) for key, value in pairs if not _SECRET_QUERY.search(key)]
    if public != pairs:
        parts = parts._replace(query=urlencode(public))
    return uri if parts == whole else urlunsplit(parts)


def has_credentials(uri: str) -> bool:
    """Whether `uri` contains credentials."""
    return without_credentials(uri) != uri


def clean_urls(text: str) -> str:
    """`text` with the credentials of its URLs replaced by `HIDDEN`."""
    if "://" not in text:
        return text
    return _QUERY_VALUE.sub(rf"\1={HIDDEN}", _USERINFO.sub(f"{HIDDEN}@", text))


def redact(text: str) -> str:
    """`text` without the credentials of its URLs and without the secrets in this process's environment."""
    text = clean_urls(text)
    for secret in _secrets():
        text = text.replace(secret, HIDDEN)
    return text


def _secrets() -> Iterator[str]:
    """Values of variables whose name looks like a secret's, and the tracking URI's password, plain and URL-quoted."""
    values = [value for name, value in os.environ.items() if names_a_secret(name)]
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    values += [userinfo.partition(":")[2][:-1] for userinfo in _USERINFO.findall(uri)]
    values += [value for key, value in parse_qsl(uri.partition("?")[2]) if _SECRET_NAME.search(key)]
    for value in values:
        for spelling in {value, quote(value, safe=""), unquote(value)}:
            if len(spelling) >= _SHORTEST:
                yield spelling


@lru_cache(maxsize=4096)
def names_a_secret(name: str) -> bool:
    """Whether a variable or a key of this name has a secret as its value."""
    return _SECRET_NAME.search(name) is not None
