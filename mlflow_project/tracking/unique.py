"""Makes sure that each run or LoggedModel of a journal exists exactly once, even if several clients create it.

MLflow assigns ids itself and has no unique tags, so two clients may both search, find nothing, and create one each. But
a param in MLflow can be written only once. `settle` uses such a param as a claim:

1. Search for every entity (run or LoggedModel) with the tag. If there is none, create one and search again.
2. Sort the entities without a claim by id. Claim all but the first as superseded, then claim the first as the one that
   counts. If another client has claimed one of them differently, search again.
3. Delete the superseded entities.

Two entities can never both count. A client that claims ``x`` has superseded every other entity that its search
returned. So if ``x`` and ``y`` both counted, ``y`` was created after the search that selected ``x``, and ``x`` after
the search that selected ``y``; but ``x`` and ``y`` existed at the time of their own search, a contradiction. If a
server creates an entity long after the client has given up the request, the next search supersedes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from mlflow_project.tracking.answers import Unreachable

if TYPE_CHECKING:
    from mlflow import MlflowClient

CLAIM = "rlinf_isaac.claim"
"""Name of the param. All entities that count have the same value, so it never distinguishes runs in the UI."""
COUNTS, SUPERSEDED = "counts", "superseded"
_MOST_LOOKS = 50


class Claims(Protocol):
    """All entities of one kind in a store that carry the same tag."""

    def find(self) -> Mapping[str, str | None]:
        """Id -> claim (None if unclaimed), without deleted entities. If several count, the oldest comes first."""

    def create(self) -> None:
        """Create one more entity, without a claim."""

    def claim(self, identifier: str, value: str) -> str | None:
        """Write a claim unless there is one; returns the claim that holds now, None if the entity is gone."""

    def delete(self, identifier: str) -> None:
        """Delete a superseded entity."""


def settle(entities: Claims) -> str:
    """Id of the entity that counts; one is created if there is none.

    Args:
        entities: all candidates.

    Raises:
        Unreachable: a search does not return what was created.
    """
    for _ in range(_MOST_LOOKS):
        claims = entities.find()
        counting = _counting(claims)
        unclaimed = sorted(identifier for identifier, claim in claims.items() if claim is None)
        if counting is None and unclaimed:
            first, *others = unclaimed
            answers = [entities.claim(identifier, SUPERSEDED) for identifier in others]
            if set(answers) <= {SUPERSEDED, None} and entities.claim(first, COUNTS) == COUNTS:
                counting = first
        if counting is not None:
            _remove_others(entities, counting, claims)
            return counting
        if not unclaimed:
            entities.create()
    raise Unreachable("the store does not show the run or model that it has created")


def tidy(entities: Claims) -> None:
    """Delete the entities that a server has created since `settle`, by a late execution of an abandoned request."""
    claims = entities.find()
    counting = _counting(claims)
    if counting is not None:
        _remove_others(entities, counting, claims)


def _counting(claims: Mapping[str, str | None]) -> str | None:
    return next((identifier for identifier, claim in claims.items() if claim == COUNTS), None)


def _remove_others(entities: Claims, counting: str, claims: Mapping[str, str | None]) -> None:
    for identifier, claim in claims.items():
        if identifier != counting and claim != COUNTS:
            entities.claim(identifier, SUPERSEDED)
            entities.delete(identifier)


class _Tagged:
    """Entities of an experiment with the same tag; the claim of each is its param `CLAIM`.

    Args:
        create: creates one more entity with the tag.
    """

    def __init__(self, client: MlflowClient, experiment: str, tag: str, value: str, create: Callable[[], Any]) -> None:
        self._client, self._experiment, self._tag, self._value = client, experiment, tag, value
        self._create = create

    def create(self) -> None:
        self._create()


class Runs(_Tagged):
    """The runs of an experiment with the same tag."""

    def find(self) -> Mapping[str, str | None]:
        runs = self._client.search_runs([self._experiment], f"tags.`{self._tag}` = '{self._value}'", max_results=100)
        return {run.info.run_id: run.data.params.get(CLAIM) for run in runs}

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
    """The LoggedModels of an experiment with the same tag.

    A model that is READY without a claim counts, too: an earlier release or a person has created it.
    """

    def find(self) -> Mapping[str, str | None]:
        models = self._client.search_logged_models([self._experiment], f"tags.`{self._tag}` = '{self._value}'")
        finished = {model.model_id: COUNTS for model in models if str(model.status) == "READY"}
        claims = {model.model_id: (model.params or {}).get(CLAIM) for model in models}
        oldest_first = sorted(models, key=lambda model: (model.creation_timestamp, model.model_id))
        return {model.model_id: claims[model.model_id] or finished.get(model.model_id) for model in oldest_first}

    def claim(self, identifier: str, value: str) -> str | None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.log_model_params(identifier, {CLAIM: value})
            return value
        except MlflowException:  # the model has a claim already, or the store fails; then `find` fails as well
            claims = self.find()
        if identifier in claims and claims[identifier] is None:
            raise Unreachable(f"LoggedModel {identifier} accepts no params")
        return claims.get(identifier)

    def delete(self, identifier: str) -> None:
        self._client.delete_logged_model(identifier)
