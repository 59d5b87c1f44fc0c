"""Runs in an interpreter with vla-eval: its own recording and export."""

import random
from pathlib import Path

from vla_eval.recording import RecordingStore
from vla_eval.results.export import export_db

random.seed(3)
out = Path()
db = out / "recording-e1.sqlite"
db.unlink(missing_ok=True)
s = RecordingStore(db)
config = {"benchmark": "trivial", "params": {"seed": 7, "suite": "two"}, "max_steps": 50}
s.set_run_metadata("e1", config)
s.upsert_eval_metadata(
    "e1",
    "trivial",
    {
        "benchmark": "trivial",
        "mode": "sync",
        "config": config,
        "metric_keys": {"success": "mean"},
        "server_info": {"model": "random"},
    },
)
for t, task in enumerate(("reach", "push")):
    for i in range(10):
        ok = random.random() < 0.5
        s.upsert_episode_result(
            sid="s",
            eid=f"{t}-{i}",
            eval_id="e1",
            task_name=task,
            episode_id=i,
            status="success" if ok else "fail",
            metrics={"success": ok},
            steps=10 + i,
            elapsed_sec=0.5,
            context={"task_idx": t},
            jsonl_path="",
            failure_reason=None,
            failure_detail=None,
        )
s.set_shard_complete("e1", 0, 1, complete=True)
s.close()
export_db(db, out)
