"""The commands of a model card that serve and evaluate the checkpoint, to be pasted as they are."""

from __future__ import annotations

from collections.abc import Iterator

from mlflow_project.publishing.evidence import Evidence
from mlflow_project.serving.spellings import spellings
from rlinf_isaac.checkpoint import facts
from rlinf_isaac.config import build_config
from rlinf_isaac.config.task import task_of
from rlinf_isaac.ground.hub import SCHEME


def usage(evidence: Evidence, repo: str, revision: str | None = None) -> Iterator[str]:
    """The lines of the section, for the repository ``org/name`` and a branch of it (None: the main one)."""
    bundle = evidence.bundle
    uri = f"{SCHEME}{repo}" + (f"@{revision.replace('/', '%2F')}" if revision else "")
    config = build_config(bundle.job, f"{bundle.path}/config.json")
    task = task_of(config)
    assume = " --assume all" if facts.not_known(bundle) else ""
    if assume:
        yield "Some facts of its training are not known (below); `--assume all` takes them from the preset."
        yield ""
    several = f" --task {next(iter(bundle.job['suite']['order']))}" if bundle.job.get("suite") else ""
    yield from ("```bash", "pip install 'rlinf-isaac[hub]'", f"rlinf-isaac serve {uri}{several}{assume}")
    if task.env is not None:
        yield f"rlinf-isaac eval --ckpt-root {uri}{_same_episodes(evidence)}{assume}"
    yield from ("```", "")
    named = spellings({slot: camera.dataset for slot, camera in task.cameras.items()}, task.state.dataset)
    size = config.model.vision.image_size
    lines = [f'    "{named[slot][0]}": np.zeros(({size}, {size}, 3), np.uint8),' for slot in task.cameras]
    lines.append(f'    "{named["state"][0]}": np.zeros({len(facts_of_state(evidence))}, np.float32),')
    yield "While `serve` runs, a robot asks for its next actions like this (zeros stand for what it observes):"
    yield from (
        "",
        "```python",
        "import numpy as np",
        "from mlflow_project.serving.client import PolicyClient",
        "",
        "observation = {",
        *lines,
        "}",
        'with PolicyClient("127.0.0.1", 8000) as policy:',
        '    actions = policy.infer(observation)["actions"]  # (actions of a chunk, dims), in robot units',
        "```",
    )


def facts_of_state(evidence: Evidence) -> tuple[str, ...]:
    """A name for each dim of the state."""
    from rlinf_isaac.data.norm_stats import from_json

    bundle = evidence.bundle
    if names := facts.recorded(bundle, "state", "state_names"):
        return tuple(names)
    return tuple(map(str, range(len(from_json(bundle.norm_stats_bytes, str(bundle.path)).state.mean))))


def _same_episodes(evidence: Evidence) -> str:
    """The options with which `eval` plays the episodes of the evaluation again."""
    if evidence.evaluation is None:
        return ""
    seeds = sorted({row.seed for row in evidence.evaluation.rows})
    return f" --episodes {len(seeds)} --first-seed {seeds[0]}"
