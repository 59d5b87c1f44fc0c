"""What the functions of the Python API return: runs, comparisons and promotions, with their tables as data frames."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlflow_project.vocabulary import RUN_ID

if TYPE_CHECKING:
    from pandas import DataFrame

    from mlflow_project.comparison.compare import Comparison
    from mlflow_project.promotion.judge import Judgement
    from mlflow_project.tracked.promote import Promotion
    from mlflow_project.tracking.runs import TrackedRun


@dataclass(frozen=True)
class Run:
    """A run that a function has recorded.

    Attributes:
        id: MLflow's id; None while the store does not answer (``rlinf-isaac sync`` delivers it later).
        verb: what ran.
        path: what it made: a dataset, or a directory of checkpoints or of episodes.
        tracking_uri: the store.
    """

    id: str | None
    verb: str
    path: Path
    tracking_uri: str

    @classmethod
    def of(cls, runs: Sequence[TrackedRun], verb: str, path: Path) -> Run:
        """The run that `noted` has seen."""
        from mlflow_project.tracking.redact import without_credentials

        first = runs[0]
        ids = first.ids()
        return cls(ids[0] if ids else None, verb, path, without_credentials(first.tracking_uri))

    def metrics(self) -> DataFrame:
        """The metrics over the steps: a row per step, a column per metric; empty where the store has none.

        Raises:
            InvalidJob: the store does not have this run yet.
        """
        import pandas
        from mlflow import MlflowClient

        from mlflow_project.tracking.store import with_credentials

        client, run_id = MlflowClient(with_credentials(self.tracking_uri)), run_id_of(self)
        names = client.get_run(run_id).data.metrics
        columns = {
            name: {point.step: point.value for point in client.get_metric_history(run_id, name)} for name in names
        }
        return pandas.DataFrame(columns).rename_axis("step").sort_index()


@dataclass(frozen=True, repr=False)
class Compared:
    """Checkpoints, compared; shown by its verdict, and in a notebook by its table as well.

    Attributes:
        comparison: the standings, pairs and tests themselves.
        run: the run of the evaluation, if `evaluate` made it.
    """

    comparison: Comparison
    run: Run | None = None

    @property
    def verdict(self) -> str:
        """One sentence: which checkpoint is better than all others, or which are tied."""
        return self.comparison.verdict

    def frame(self) -> DataFrame:
        """One row per checkpoint, the highest success rate first: ``checkpoint``, ``rank`` (the places that the tests
        leave possible), ``success`` with its 95 % Wilson interval ``low`` and ``high`` (all in [0, 1]), ``episodes``,
        the number of each other outcome, the means ``return`` and ``length`` (control steps), ``step``, ``run`` and
        ``sha256``."""
        import pandas

        frame = pandas.DataFrame(
            [
                {
                    "checkpoint": each.label,
                    "rank": each.place,
                    "success": each.success.rate,
                    "low": each.success.low,
                    "high": each.success.high,
                    "episodes": each.success.n,
                    **{name: each.outcomes.get(name, 0) for name in self.comparison.outcomes},
                    "return": each.episode_return,
                    "length": each.length,
                    "step": each.evaluation.step,
                    "run": each.evaluation.run,
                    "sha256": each.evaluation.checkpoint,
                }
                for each in self.comparison.standings
            ]
        )
        return self._attributed(frame)

    def arms(self) -> DataFrame:
        """One row per arm that was named: ``arm``, ``trainings``, ``mean``, ``retraining_sd``, ``low`` and ``high`` of
        its 95 % interval (all in [0, 1], missing where it is not known) and the ``checkpoints`` taken."""
        import pandas

        from mlflow_project.comparison.arms import arm_table

        return pandas.DataFrame(arm_table(self.comparison.arms))

    def pairs(self) -> DataFrame:
        """One row per pair of checkpoints, with the seeds that only one of them solved, and the p-values."""
        import pandas

        from mlflow_project.comparison.tables import pair_table

        return self._attributed(pandas.DataFrame(pair_table(self.comparison)))

    def robustness(self) -> DataFrame:
        """One row per checkpoint and axis of ``evaluate(..., vary=...)``: its rate, the difference to the control on
        the same seeds with its 95 % interval, and the p-values. Empty if nothing was varied."""
        import pandas

        from mlflow_project.comparison.robustness import robustness_table

        return self._attributed(pandas.DataFrame(robustness_table(self.comparison.standings)))

    def rows(self) -> DataFrame:
        """One row per checkpoint and episode (`mlflow_project.api.rows`)."""
        import pandas

        from mlflow_project.comparison.episodes import table_row

        renamed = {"checkpoint": "sha256", "checkpoint_step": "step", "episode_return": "return"}
        rows = [
            {"checkpoint": standing.label}
            | {renamed.get(key, key): value for key, value in table_row(row).items()}
            | {"run": standing.evaluation.run}
            for standing in self.comparison.standings
            for row in standing.evaluation.rows
        ]
        return self._attributed(pandas.DataFrame(rows))

    def _attributed(self, frame: DataFrame) -> DataFrame:
        if self.run is not None:
            frame.attrs["run"] = self.run
        return frame

    def __repr__(self) -> str:
        return self.verdict

    def _repr_html_(self) -> str:
        from html import escape

        return f"<p>{escape(self.verdict)}</p>{self.frame().drop(columns=['run', 'sha256']).to_html(index=False)}"


@dataclass(frozen=True)
class Promoted:
    """How a promotion ended.

    Attributes:
        promotion: outcome, versions, and the rules that refused it.
        name: of the registered model.
        judgement: what each rule says; None if the checkpoint was champion already.
    """

    promotion: Promotion
    name: str
    judgement: Judgement | None

    @property
    def passed(self) -> bool:
        """Whether the checkpoint is (in a dry run: could become) the champion."""
        return self.promotion.passed

    @property
    def uri(self) -> str:
        """``models:/name@champion``."""
        return f"models:/{self.name}@champion"

    def frame(self) -> DataFrame:
        """One row per rule: ``rule``, ``passed``, ``because``."""
        import pandas

        rulings = self.judgement.rulings if self.judgement else ()
        columns = ["rule", "passed", "because"]
        return pandas.DataFrame([{name: getattr(each, name) for name in columns} for each in rulings], columns=columns)


@contextmanager
def noted() -> Iterator[list[TrackedRun]]:
    """`tracking.runs.noted_runs`, imported late."""
    from mlflow_project.tracking.runs import noted_runs

    with noted_runs() as runs:
        yield runs


def run_id_of(run: Any) -> str:
    """What a verb takes for a run: its id, or the text as it is.

    Raises:
        InvalidJob: it is a run that the store does not have yet.
    """
    from rlinf_isaac.ground.errors import InvalidJob

    run = getattr(run, "attrs", {}).get("run", run)  # a frame of `evaluate`
    run = getattr(run, "run", None) or run  # a `Compared`
    if not isinstance(run, Run):
        return str(run)
    if run.id is None or not RUN_ID.fullmatch(run.id):
        cause = f"the store at {run.tracking_uri} does not have this run of {run.verb} yet"
        raise InvalidJob.of("not-in-store", cause, "deliver it with: rlinf-isaac sync")
    return run.id


def arm_words(arms: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """Arms (name -> runs) as ``--arm`` takes them."""
    return tuple(f"{name}={','.join(map(run_id_of, runs))}" for name, runs in arms.items())
