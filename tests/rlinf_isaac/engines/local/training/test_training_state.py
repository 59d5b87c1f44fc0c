from __future__ import annotations

from rlinf_isaac.engines.local.training.training_state import MetricsLog
from rlinf_isaac.ground.events import Metrics


def test_rewind_forgets_what_is_about_to_be_repeated(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    entries = [Metrics(step, {"train/loss": 1 / step}, time=float(step)) for step in (2, 4, 6)]
    for entry in entries:
        log.append(entry)
    with open(log.path, "a") as file:
        file.write('{"step": 8, "ti')  # killed while writing
    assert list(log.rewind(4)) == entries[:2]
    assert list(MetricsLog(log.path).rewind(100)) == entries[:2]
    assert list(MetricsLog(tmp_path / "none.jsonl").rewind(100)) == []
