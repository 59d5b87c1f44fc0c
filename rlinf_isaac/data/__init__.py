"""Datasets: `lerobot` (their files), `validate` (what is wrong in them), `norm_stats`; here are mixtures and parts."""
