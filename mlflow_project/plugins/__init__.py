"""Plugins that MLflow loads if this package is installed (entry points in pyproject.toml)."""
