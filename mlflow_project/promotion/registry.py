"""The model registry: versions with their evidence, and the aliases ``champion``, ``previous`` and ``candidate``.

A version is created with all its tags in one request, and only then gets an alias, so no crash leaves a champion
without evidence. MLflow moves an alias without checking its old value, so concurrent promotions need more:

- On one machine, a lock file serialises promotions and rollbacks of a model. The second one then sees that the champion
  is no longer the version that the candidate was compared with.
- Between machines, the version itself is the claim: it is created with the tag ``promotion.replaces``, and a store on a
  database assigns version numbers one after the other. If several versions claim the place of one champion, the lowest
  number gets it and the others are refused. A claim that a crash has left behind counts for `CLAIM_S`.
- The champion is checked right before and right after its alias is moved.

MLflow has no compare-and-set, so two cases are not excluded: a process that is suspended between the last check and the
move, and that later undoes what another machine did meanwhile; and people who move aliases in MLflow's UI. The second
check detects most of these cases, not all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from mlflow_project.lineage.chain_store import MODEL_ID
from mlflow_project.promotion.looks import Reign
from mlflow_project.tracking.store import tracking_uri
from mlflow_project.vocabulary import MODEL_TAG
from rlinf_isaac.ground.atomic import exclusive
from rlinf_isaac.ground.cache import cache_directory
from rlinf_isaac.ground.digest import json_digest
from rlinf_isaac.ground.errors import PromotionRefused

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION, PREVIOUS, CANDIDATE = "champion", "previous", "candidate"
REPLACES, STATE = "promotion.replaces", "promotion.state"
NONE = "none"
"""Value of the tag `REPLACES` if there was no champion."""
OPEN, PROMOTED, LOST, ROLLED_BACK = "open", "promoted", "lost", "rolled back"
"""Values of the tag `STATE`: not champion yet; is or was champion; another version took the place; was champion and
was rolled back."""
CLAIM_S = 600
"""Seconds for which the claim of an unfinished promotion counts; a promotion needs only a few requests to finish."""


@dataclass(frozen=True)
class Version:
    """A model version: number, sha256 of the bundle, id of the LoggedModel, tags, and time of creation (ms)."""

    number: str
    digest: str | None
    model_id: str | None
    tags: Mapping[str, str]
    created_ms: int


class Registry:
    """One registered model of an MLflow store. Nothing is cached; every call reads the store.

    Args:
        client: client of the store that this process uses (`mlflow_project.tracking.store`).
        name: name of the registered model, which need not exist.
    """

    def __init__(self, client: MlflowClient, name: str) -> None:
        self.name = name
        self._client = client
        self._locks, self._store = cache_directory("locks"), tracking_uri()

    def aliased(self, alias: str) -> Version | None:
        """The version that has the alias, or None."""
        number = self._aliases().get(alias)
        return None if number is None else self._read(number)

    def versions(self) -> list[Version]:
        """All versions, by number."""
        versions: list[ModelVersion] = []
        token = None
        while page := self._client.search_model_versions(f"name = '{self.name}'", page_token=token):
            versions += page
            if not (token := page.token):
                break
        return sorted(map(_version, versions), key=lambda version: int(version.number))

    def rolled_back(self, digest: str) -> str | None:
        """Number of a version with these bytes that was rolled back, or None."""
        return next(
            (v.number for v in self.versions() if v.digest == digest and v.tags.get(STATE) == ROLLED_BACK), None
        )

    def reigns(self, champion: Version) -> list[Reign]:
        """The reigns of a champion and of its predecessors; a version that was rolled back has no reign."""
        return [
            Reign(version.created_ms, version.number)
            for version in self.versions()
            if version.number == champion.number
            or (version.tags.get(STATE) == PROMOTED and version.created_ms < champion.created_ms)
        ]

    def promote(
        self, model_id: str, digest: str, tags: Mapping[str, str], replaces: str | None, description: str | None = None
    ) -> Version:
        """Register a LoggedModel as a new version and make it champion.

        The unfinished version of an earlier, interrupted call for the same bytes is set to the state `LOST`.

        Args:
            model_id: id of the LoggedModel, whose bytes and evidence are uploaded already.
            digest: sha256 of the bundle.
            tags: evidence.
            replaces: number of the champion that the candidate was compared with; None if there was none.
            description: what MLflow's page of the version says, in Markdown.

        Raises:
            PromotionRefused: another promotion or a rollback came in between.
        """
        with self.alone({"model": self.name}):
            self._expect_champion(replaces)
            self._ensure_model()
            claim = {MODEL_TAG: digest, REPLACES: replaces or NONE, STATE: OPEN}
            created = self._client.create_model_version(
                self.name,
                f"models:/{model_id}",
                tags={**tags, **claim},
                description=description,
                model_id=model_id,
            )
            self._tell_model(model_id, str(created.version))
            mine = _version(created)
            try:
                self._win_claim(mine, replaces)
                self._expect_champion(replaces)
                self._set_alias(CANDIDATE, mine.number)
                # `previous` is moved before `champion`, so that a new champion can always be rolled back.
                if replaces is not None:
                    self._set_alias(PREVIOUS, replaces)
                self._expect_champion(replaces)
                self._set_alias(CHAMPION, mine.number)
                self._expect_champion(mine.number)
            except PromotionRefused:
                self._set_state(mine.number, LOST)
                raise
            self._set_state(mine.number, PROMOTED)
            return mine

    def finish(self, champion: Version) -> None:
        """Finish a promotion that was interrupted after its last alias: set the state of the version, and let its model
        know of it."""
        if champion.model_id is not None:
            self._tell_model(champion.model_id, champion.number)
        if champion.tags.get(STATE) == OPEN:
            self._set_state(champion.number, PROMOTED)

    def rollback(self, tags: Mapping[str, str]) -> tuple[Version, Version]:
        """Make the previous champion champion again.

        The alias ``previous`` moves to the version that this one had replaced, so that another rollback goes one
        version further back.

        Args:
            tags: tags for the version that is rolled back.

        Returns:
            the version that was rolled back, and the champion.

        Raises:
            PromotionRefused: there is no version to roll back to.
        """
        with self.alone({"model": self.name}):
            champion, previous = self.aliased(CHAMPION), self.aliased(PREVIOUS)
            if champion is None:
                raise PromotionRefused(f"{self.name} has no champion")
            if previous is None:
                raise PromotionRefused(
                    f"version {champion.number} is the first champion of {self.name}, so it cannot be rolled back"
                )
            if previous.number == champion.number:  # a promotion or a rollback was interrupted between the two aliases
                self._set_previous(champion)
                raise PromotionRefused(
                    f"version {champion.number} of {self.name} is champion; an earlier promotion or rollback was"
                    " interrupted and has been finished now. Check the aliases, and roll back again if needed"
                )
            for key, value in {**tags, STATE: ROLLED_BACK}.items():
                self._client.set_model_version_tag(self.name, champion.number, key, value)
            self._expect_champion(champion.number)
            self._set_alias(CHAMPION, previous.number)
            self._expect_champion(previous.number)
            self._set_previous(previous)
            return champion, previous

    @contextmanager
    def alone(self, what: Mapping[str, str]) -> Iterator[None]:
        """Let only one process of this machine at a time enter the block for `what`, e.g. a registered model."""
        self._locks.mkdir(parents=True, exist_ok=True)
        with exclusive(self._locks / json_digest({"store": self._store} | dict(what))):
            yield

    def _tell_model(self, model_id: str, number: str) -> None:
        """Write the tag by which MLflow's page of a LoggedModel knows its versions, as `mlflow.register_model` does. A
        tracking server writes it by itself, a client of a database does not."""
        from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

        known = json.loads(self._client.get_logged_model(model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
        if not any((each.get("name"), str(each.get("version"))) == (self.name, number) for each in known):
            known.append({"name": self.name, "version": int(number)})
            self._client.set_logged_model_tags(model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(known)})

    def _win_claim(self, mine: Version, replaces: str | None) -> None:
        """Refuse `mine` if an unfinished promotion to the same place was created before it."""
        for other in self.versions():
            earlier = int(other.number) < int(mine.number)
            if not earlier or (other.tags.get(STATE), other.tags.get(REPLACES)) != (OPEN, mine.tags[REPLACES]):
                continue
            if other.digest == mine.digest:  # a crash has left it behind, and `mine` completes it
                self._set_state(other.number, LOST)
            elif mine.created_ms - other.created_ms <= CLAIM_S * 1000:
                place = f"of version {replaces}" if replaces else "of the first champion"
                raise PromotionRefused(
                    f"version {other.number} of {self.name} is about to take the place {place}: promote again after"
                    f" that, or in {CLAIM_S // 60} minutes if that promotion was interrupted"
                )

    def _expect_champion(self, number: str | None) -> None:
        now = self._aliases().get(CHAMPION)
        if now != number:
            was, is_now = (f"version {version}" if version else "none" for version in (number, now))
            raise PromotionRefused(
                f"the champion of {self.name} was {was} and is {is_now} now: another promotion or a rollback came in"
                " between; promote again to compare the checkpoint with the new champion"
            )

    def _set_previous(self, champion: Version) -> None:
        """Move the alias ``previous`` to the version that `champion` replaced."""
        replaced = champion.tags.get(REPLACES, NONE)
        if replaced == NONE:
            self._client.delete_registered_model_alias(self.name, PREVIOUS)
        else:
            self._set_alias(PREVIOUS, replaced)

    def _ensure_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _aliases(self) -> Mapping[str, str]:
        from mlflow.exceptions import MlflowException

        try:
            return {
                alias: str(number) for alias, number in self._client.get_registered_model(self.name).aliases.items()
            }
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise

    def _read(self, number: str) -> Version:
        return _version(self._client.get_model_version(self.name, number))

    def _set_alias(self, alias: str, number: str) -> None:
        self._client.set_registered_model_alias(self.name, alias, number)

    def _set_state(self, number: str, state: str) -> None:
        self._client.set_model_version_tag(self.name, number, STATE, state)


def now() -> str:
    """The current time in UTC, ISO 8601 with seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _version(version: ModelVersion) -> Version:
    source = MODEL_ID.fullmatch(version.source or "")
    return Version(
        number=str(version.version),
        digest=version.tags.get(MODEL_TAG),
        model_id=source[1] if source else None,
        tags=version.tags,
        created_ms=int(version.creation_timestamp),
    )
