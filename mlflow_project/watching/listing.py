"""The runs and checkpoints of a store, for `ls`; or of the journals on this disk while the store does not answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project.vocabulary import (
    EPISODES,
    MODEL_TAG,
    PARENT_RUN_TAG,
    SUCCESS,
    SUCCESS_HIGH,
    SUCCESS_LOW,
    TASK_TAG,
    URI_TAG,
    VERB_TAG,
)
from mlflow_project.watching.journals import JournalView, sent
from mlflow_project.watching.status import status_of

if TYPE_CHECKING:
    from mlflow import MlflowClient

_PAGE = 1000


@dataclass(frozen=True)
class Rate:
    """A success rate with its 95 % interval and the number of episodes."""

    rate: float
    low: float
    high: float
    episodes: int


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: digest (sha256) and name, and its directory, which is None where it is not known or not here."""

    digest: str
    name: str
    step: int
    where: str | None
    size: int | None
    success: Rate | None


@dataclass(frozen=True)
class Row:
    """A run of a verb.

    Attributes:
        name, verb, id: of the run.
        status: ``running``, ``finished``, ``failed``, ``killed`` or ``died``.
        began: unix seconds.
        seconds: how long it worked; None while it runs.
        dataset: the dataset of a training, or the task.
        checkpoints: those that the run or one nested in it has made or evaluated.
    """

    name: str
    verb: str
    id: str
    status: str
    began: float
    seconds: float | None
    dataset: str
    checkpoints: tuple[Checkpoint, ...]

    @property
    def success(self) -> Rate | None:
        """The highest rate of its checkpoints."""
        rates = [each.success for each in self.checkpoints if each.success]
        return max(rates, key=lambda rate: rate.rate, default=None)

    @property
    def size(self) -> int | None:
        """Bytes on this disk of its checkpoints; None if none is here."""
        sizes = [each.size for each in self.checkpoints if each.size is not None]
        return sum(sizes) if sizes else None

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dict."""
        rate = self.success
        return asdict(self) | {"success": rate and asdict(rate), "size": self.size}


@dataclass
class Facts:
    """What a store or a journal says of one run; `models` are (digest, name, step, directory) of what it has made."""

    id: str
    parent: str | None
    name: str
    status: str
    began: float
    ended: float | None
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    dataset: str = ""
    models: list[tuple[str, str, int, str]] = field(default_factory=list)


def facts_of_store(client: MlflowClient) -> list[Facts]:
    """The newest thousand runs of a store.

    Raises:
        mlflow.exceptions.MlflowException: the store does not answer.
    """
    experiments = [each.experiment_id for each in client.search_experiments()]
    found: dict[str, Facts] = {}
    # LoggedModel -> the runs that have made it: a training that is resumed has those of the earlier run, too.
    makers: dict[str, list[Facts]] = {}
    for run in client.search_runs(experiments, max_results=_PAGE, order_by=["attributes.start_time DESC"]):
        info, tags = run.info, run.data.tags
        data = run.inputs.dataset_inputs if run.inputs else []
        training = [each.dataset.name for each in data if not _is_evaluation(each)]
        found[info.run_id] = Facts(
            info.run_id,
            tags.get(PARENT_RUN_TAG),
            info.run_name,
            info.status.lower(),
            info.start_time / 1000,
            info.end_time / 1000 if info.end_time else None,
            tags,
            run.data.metrics,
            ", ".join(training),
        )
        for output in run.outputs.model_outputs if run.outputs else ():
            makers.setdefault(output.model_id, []).append(found[info.run_id])
    for start in range(0, len(experiments), 10):  # the most experiments that MLflow takes in one question
        for model in client.search_logged_models(experiments[start : start + 10], max_results=_PAGE):
            digest, step = model.tags.get(MODEL_TAG, ""), int((model.params or {}).get("step", 0))
            for maker in makers.get(model.model_id, ()) if digest else ():
                maker.models.append((digest, model.name, step, model.tags.get(URI_TAG, "")))
    return list(found.values())


def facts_of_journals(views: Iterable[JournalView]) -> list[Facts]:
    """The runs of journals, with MLflow's ids where they are known."""
    found = []
    for view in views:
        ids = {run: mlflow_id for run, (mlflow_id, _) in sent(view.path).runs.items()}
        state = status_of(view).state
        for each in view.runs.values():
            found.append(
                Facts(
                    ids.get(each.run, each.run),
                    None if each.parent is None else ids.get(each.parent, each.parent),
                    each.name,
                    (each.status or state).lower(),
                    each.began,
                    each.ended,
                    each.tags,
                    {key: points[-1].value for key, points in each.metrics.items()},
                    ", ".join(each.datasets),
                    [(model.digest, model.name, model.step, model.uri) for model in each.made],
                )
            )
    return sorted(found, key=lambda each: each.began, reverse=True)


def with_dead(facts: Sequence[Facts], views: Iterable[JournalView]) -> list[Facts]:
    """The runs of a store; those that it takes for running are ``died`` where a journal here knows that they have."""
    dead = set()
    for view in views if any(each.status == "running" for each in facts) else ():
        if status_of(view).state == "died":
            dead |= {mlflow_id for mlflow_id, _ in sent(view.path).runs.values()}
    return [replace(each, status="died") if each.status == "running" and each.id in dead else each for each in facts]


def rows(facts: Sequence[Facts], limit: int | None = None) -> list[Row]:
    """The newest `limit` runs of verbs that are nested in no other, the newest first, with their checkpoints."""
    by_id = {each.id: each for each in facts}
    families: dict[str, list[Facts]] = {}
    for each in facts:
        families.setdefault(_top(each, by_id), []).append(each)
    rates = {
        each.tags[MODEL_TAG]: rate
        for each in sorted(facts, key=lambda each: each.began)
        if MODEL_TAG in each.tags and (rate := _rate(each.metrics))
    }
    models = {model[0]: model for each in facts for model in each.models}
    tops = [each for each in facts if each.id in families and VERB_TAG in each.tags]
    found = []
    for top in sorted(tops, key=lambda each: each.began, reverse=True)[:limit]:
        family = sorted(families[top.id], key=lambda each: each.began)
        made = {model[0] for each in family for model in each.models}
        played = {each.tags[MODEL_TAG] for each in family if MODEL_TAG in each.tags}
        known = [models.get(digest) or _from_tags(digest, family) for digest in made | played]
        checkpoints = [
            Checkpoint(digest, name, step, uri or None, _size(uri), rates.get(digest))
            for digest, name, step, uri in sorted(known, key=lambda model: ("-rl-" in model[1], model[2], model[1]))
        ]
        data = next((each.dataset for each in family if each.dataset), top.tags.get(TASK_TAG, ""))
        seconds = None if top.ended is None else top.ended - top.began
        verb = top.tags[VERB_TAG]
        found.append(Row(top.name, verb, top.id, top.status, top.began, seconds, data, tuple(checkpoints)))
    return found


def _top(each: Facts, by_id: Mapping[str, Facts]) -> str:
    while each.parent is not None and each.parent in by_id:
        each = by_id[each.parent]
    return each.id


def _rate(metrics: Mapping[str, float]) -> Rate | None:
    values = [metrics.get(key) for key in (SUCCESS, SUCCESS_LOW, SUCCESS_HIGH, EPISODES)]
    if any(value is None for value in values):
        return None
    rate, low, high, count = (float(value) for value in values if value is not None)
    return Rate(rate, low, high, int(count))


def _from_tags(digest: str, family: Iterable[Facts]) -> tuple[str, str, int, str]:
    """A checkpoint that was evaluated, and that no run of this store has made."""
    run = next(each for each in family if each.tags.get(MODEL_TAG) == digest)
    uri = run.tags.get(URI_TAG, "")
    name = Path(uri).name
    return digest, run.name, int(name) if name.isdecimal() else 0, uri


def _size(uri: str) -> int | None:
    """Bytes of the files in a directory; None if it is not here."""
    if not uri or not Path(uri).is_dir():
        return None
    return sum(_sizes(Path(uri)))


def _sizes(directory: Path) -> Iterator[int]:
    for path in directory.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                yield path.stat().st_size


def _is_evaluation(entry: Any) -> bool:
    return any(tag.key == "mlflow.data.context" and tag.value == "evaluation" for tag in entry.tags)
