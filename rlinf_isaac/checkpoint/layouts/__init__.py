"""Checkpoints of pi0 and pi0.5 under other names than OpenPI's PyTorch model has: what maps them to those."""
