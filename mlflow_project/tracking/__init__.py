"""Runs as they are written down here and brought to MLflow, whether a server answers or not (docs/tracking.md)."""
