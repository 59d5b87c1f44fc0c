"""Without a GPU Triton interprets its kernels; with one they run."""

from __future__ import annotations

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"  # read where a kernel is defined: before anything imports triton
