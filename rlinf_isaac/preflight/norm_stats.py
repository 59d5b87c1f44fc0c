"""Norm stats against the policy that is to use them."""

from __future__ import annotations

import json
from pathlib import Path

from rlinf_isaac.checkpoint.trained_with import NormStatsFile
from rlinf_isaac.config.schema import JobConfig
from rlinf_isaac.envs.contract import TASKS, state_names
from rlinf_isaac.errors import InvalidJob, Problem

PROVENANCE_FILE = "provenance.json"
HASHED_AT_ONCE = 1 << 30
"""Bytes of a dataset that a quick check hashes; above, it relies on an earlier hash."""

_CURE = "compute them with: rlinf-isaac norm_stats --dataset DATASET, or leave --norm-stats at auto"


def check_norm_stats(data: bytes, source: Path, config: JobConfig) -> list[Problem]:
    """Keys, sizes and quantiles of a ``norm_stats.json`` that `source` holds.

    Args:
        data: its bytes.
        source: file or bundle, for the messages.
        config: of the job that normalises with it.
    """
    # pyarrow, which the reader of datasets beside it needs, takes a moment; --help should not wait for it
    from rlinf_isaac.data.norm_stats import from_json
    from rlinf_isaac.pi0.transforms import norm_mode

    try:
        stats = from_json(data, str(source))
    except InvalidJob as error:
        return list(error.problems)
    problems = []
    expected = {
        "state": len(state_names(config.policy.state_layout, TASKS[config.env.task].num_cubes)),
        "actions": config.policy.env_action_dim,
    }
    for key, dims in expected.items():
        if (found := getattr(stats, key).dim) != dims:
            cause = f"{source}: the norm stats of '{key}' have {found} dims, the policy has {dims}"
            cure = "use the norm stats of its training data; env.task and policy.state_layout decide the state's dims"
            problems.append(Problem("norm-stats-dim", cause, cure))
    if norm_mode(config.policy.norm, config.model.pi05) == "quantile":
        for key in expected:
            if getattr(stats, key).q01 is None or getattr(stats, key).q99 is None:
                cause = f"{source}: '{key}' has no q01 and q99, which quantile normalisation (pi0.5) needs"
                cure = "compute them anew with: rlinf-isaac norm_stats --dataset DATASET"
                problems.append(Problem("norm-stats-no-quantiles", cause, cure))
    return problems


def check_norm_stats_origin(file: NormStatsFile, root: Path, config: JobConfig, *, quick: bool) -> list[Problem]:
    """Whether ``provenance.json`` beside a ``norm_stats.json`` says that it is of this dataset and these settings.

    Args:
        file: the norm stats.
        root: of the dataset.
        config: its settings of the norm stats.
        quick: do not hash a large dataset that was not hashed before; a warning then says what was not compared.

    Raises:
        DatasetError: a file of the dataset cannot be read.
    """
    from rlinf_isaac.data.dataset_digest import cached_dataset_digest, dataset_digest
    from rlinf_isaac.data.norm_stats import settings_of

    provenance_file = file.path.parent / PROVENANCE_FILE
    try:
        provenance = json.loads(provenance_file.read_bytes())
    except FileNotFoundError:
        cause = f"{file.path} has no {PROVENANCE_FILE} beside it: nothing says which dataset it belongs to"
        return [Problem("norm-stats-provenance", cause, _CURE)]
    except (OSError, ValueError) as error:
        return [Problem("norm-stats-provenance", f"{provenance_file} cannot be read ({error})", _CURE)]
    expected = {**settings_of(config), "norm_stats": file.digest}
    problems = []
    for key, value in expected.items():
        if provenance.get(key) != value:
            code = "norm-stats-edited" if key == "norm_stats" else "norm-stats-mismatch"
            cause = f"{provenance_file} says {key}={provenance.get(key)}, but the {_SIDE[code]} {value}"
            problems.append(Problem(code, cause, _CURE))
    digest = cached_dataset_digest(root)
    if digest is None and quick and _size(root) > HASHED_AT_ONCE:
        cause = f"{root} was never hashed, so it is not known whether {file.path} belongs to it"
        cure = "the job itself hashes it; or compute the norm stats, which does so, too"
        return [*problems, Problem("not-hashed", cause, cure, level="warning")]
    digest = digest or dataset_digest(root)
    if provenance.get("dataset") != digest:
        cause = (
            f"{file.path} is of the dataset {provenance.get('dataset')} ({provenance_file}),"
            f" {root} is the dataset {digest}"
        )
        problems.append(Problem("norm-stats-mismatch", cause, _CURE))
    return problems


_SIDE = {"norm-stats-edited": "file has the sha256", "norm-stats-mismatch": "job has"}


def _size(root: Path) -> int:
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
