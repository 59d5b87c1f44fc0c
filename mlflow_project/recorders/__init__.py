"""Records the events of an engine as MLflow runs, metrics, tables and models."""
