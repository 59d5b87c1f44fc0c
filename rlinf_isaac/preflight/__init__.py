"""Every check that can fail a job, before anything heavy is imported: no torch, no simulator, well under two seconds.

Checks return problems instead of raising, so that a verb can show all of them at once (`Findings`).
"""

from rlinf_isaac.ground.probe import check_free_space
from rlinf_isaac.preflight.checkpoints import check_bundles
from rlinf_isaac.preflight.config import check_config
from rlinf_isaac.preflight.dataset import check_dataset, check_training_data, suitable_job
from rlinf_isaac.preflight.findings import Findings
from rlinf_isaac.preflight.machine import check_device, check_prompts, check_shared_memory, check_simulator
from rlinf_isaac.preflight.memory import check_memory, check_rl_memory
from rlinf_isaac.preflight.norm_stats import check_norm_stats
from rlinf_isaac.preflight.training import check_trainable
from rlinf_isaac.preflight.variation import check_variation

__all__ = [
    "Findings",
    "check_bundles",
    "check_config",
    "check_dataset",
    "check_device",
    "check_free_space",
    "check_memory",
    "check_norm_stats",
    "check_prompts",
    "check_rl_memory",
    "check_shared_memory",
    "check_simulator",
    "check_trainable",
    "check_training_data",
    "check_variation",
    "suitable_job",
]
