"""What MLflow loads by itself where this package is installed (entry points in pyproject.toml)."""
