"""Datasets: their files (`lerobot`), checks of them (`validate`), statistics (`norm_stats`), mixtures and subsets."""
