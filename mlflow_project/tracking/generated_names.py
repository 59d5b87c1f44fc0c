"""Tells the names that MLflow makes up for runs without one, such as ``orderly-croc-959``."""

from __future__ import annotations

import re

_FORM = re.compile(r"([a-z]+)-([a-z]+)-\d{1,4}")


def was_generated(name: str | None) -> bool:
    """Whether a run's name is one that MLflow makes up.

    MLflow does not mark such names, so they are known by their form and, where MLflow still has the lists of words that
    it draws from, by the words. A name that a person has chosen has the form hardly ever, and the words never.
    """
    match = _FORM.fullmatch(name or "")
    if match is None:
        return False
    from mlflow.utils import name_utils

    lists = [getattr(name_utils, f"_GENERATOR_{kind}", None) for kind in ("PREDICATES", "NOUNS")]
    return all(words is None or word in words for word, words in zip(match.groups(), lists, strict=True))
