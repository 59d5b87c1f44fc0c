"""Converts checkpoints of torch (``.pt``, sharded, distributed) and safetensors to safetensors, and checks the result.

    from rlinf_isaac.checkpoint.convert import Options, prepare, run

    job = prepare("full_weights.pt", "converted", Options(dtype="bf16"))
    print(job.plan.summary())
    run(job)

`prepare` reports every problem of the source before torch is imported. `run` lets torch read the values, in little
memory.
"""

from rlinf_isaac.checkpoint.convert.finished import find_finished, may_be_finished
from rlinf_isaac.checkpoint.convert.job import ConversionJob, expansion, output_exists, prepare, read_record, run
from rlinf_isaac.checkpoint.convert.layout import parse_size
from rlinf_isaac.checkpoint.convert.plan import Options, Output, OutputFile, Plan, plan_conversion

__all__ = [
    "ConversionJob",
    "Options",
    "Output",
    "OutputFile",
    "Plan",
    "expansion",
    "find_finished",
    "may_be_finished",
    "output_exists",
    "parse_size",
    "plan_conversion",
    "prepare",
    "read_record",
    "run",
]
