"""Exactly one run, or one LoggedModel, for what a journal names, however many clients create it and however often.

MLflow gives out ids itself and knows no unique tags, so two clients may look, find nothing, and create two. What MLflow
does have is a value that is written once: a param. That makes an agreement (`settle`) possible:

1. Look for everything with the tag. If there is nothing, create one and look again.
2. Of what is open, all but the first (by id) are claimed as superseded, and then the first one as the one that counts.
   A claim that is there already stays, and then everything is looked at again.
3. What is superseded is deleted.

Two can never count: whoever claims ``x`` had looked, and superseded all else that there was. If both ``x`` and ``y``
counted, ``y`` was created after the look that chose ``x``, and ``x`` after the look that chose ``y``; but each was
there in its own look. What a server creates long after its answer was given up is superseded by the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mlflow_project.tracking.answers import Unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient

CLAIM = "rlinf_isaac.claim"
"""The param. Its value is the same for all that count, so that runs do not differ by it."""
COUNTS, SUPERSEDED = "counts", "superseded"
_MOST_LOOKS = 50


class Claims(Protocol):
    """One kind of thing in a store, all with one tag."""

    def find(self) -> Mapping[str, str | None]:
        """Id -> its claim, None while it is open, without deleted ones. The oldest of several that count is first."""

    def create(self) -> None:
        """Make one more, open."""

    def claim(self, identifier: str, value: str) -> str | None:
        """Write a claim once; returns the claim that is there now, None if the thing is gone."""

    def delete(self, identifier: str) -> None:
        """Remove one that is superseded."""


def settle(things: Claims) -> str:
    """Id of the one that counts; it is created if there is none.

    Args:
        things: all that may be it.

    Raises:
        Unreachable: the store does not show what was created.
    """
    for _ in range(_MOST_LOOKS):
        found = things.find()
        counting = _counting(found)
        open_ones = sorted(identifier for identifier, claim in found.items() if claim is None)
        if counting is None and open_ones:
            first, *others = open_ones
            claims = [things.claim(each, SUPERSEDED) for each in others]
            if set(claims) <= {SUPERSEDED, None} and things.claim(first, COUNTS) == COUNTS:
                counting = first
        if counting is not None:
            _remove_others(things, counting, found)
            return counting
        if not open_ones:
            things.create()
    raise Unreachable("the store does not show what it has created")


def tidy(things: Claims) -> None:
    """Remove what a server has created since `settle`: the late answer to a request that had been given up."""
    found = things.find()
    counting = _counting(found)
    if counting is not None:
        _remove_others(things, counting, found)


def _counting(found: Mapping[str, str | None]) -> str | None:
    return next((identifier for identifier, claim in found.items() if claim == COUNTS), None)


def _remove_others(things: Claims, counting: str, found: Mapping[str, str | None]) -> None:
    for each, claim in found.items():
        if each != counting and claim != COUNTS:
            things.claim(each, SUPERSEDED)
            things.delete(each)


class _Tagged:
    """Things of an experiment with one tag, whose claim is the param `CLAIM`.

    Args:
        create: makes one more, with the tag.
    """

    def __init__(self, client: MlflowClient, experiment: str, tag: str, value: str, create: Callable[[], Any]) -> None:
        self._client, self._experiment, self._tag, self._value = client, experiment, tag, value
        self._create = create

    def create(self) -> None:
        self._create()


class Runs(_Tagged):
    """The runs of an experiment with one tag."""

    def find(self) -> Mapping[str, str | None]:
        found = self._client.search_runs([self._experiment], f"tags.`{self._tag}` = '{self._value}'", max_results=100)
        return {run.info.run_id: run.data.params.get(CLAIM) for run in found}

    def claim(self, identifier: str, value: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_param(identifier, CLAIM, value)
            return value
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
        run = self._client.get_run(identifier)
        return run.data.params.get(CLAIM) if run.info.lifecycle_stage == "active" else None

    def delete(self, identifier: str) -> None:
        self._client.delete_run(identifier)


class Models(_Tagged):
    """The LoggedModels of an experiment with one tag.

    One that is finished without a claim counts, too: an earlier release made it, or a person.
    """

    def find(self) -> Mapping[str, str | None]:
        found = self._client.search_logged_models([self._experiment], f"tags.`{self._tag}` = '{self._value}'")
        finished = {model.model_id: COUNTS for model in found if str(model.status) == "READY"}
        claims = {model.model_id: (model.params or {}).get(CLAIM) for model in found}
        oldest_first = sorted(found, key=lambda model: (model.creation_timestamp, model.model_id))
        return {each.model_id: claims[each.model_id] or finished.get(each.model_id) for each in oldest_first}

    def claim(self, identifier: str, value: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_model_params(identifier, {CLAIM: value})
            return value
        except MlflowException:  # it has one, or the store is in trouble, which the next line shows
            found = self.find()
        if identifier in found and found[identifier] is None:
            raise Unreachable(f"LoggedModel {identifier} takes no params")
        return found.get(identifier)

    def delete(self, identifier: str) -> None:
        self._client.delete_logged_model(identifier)
