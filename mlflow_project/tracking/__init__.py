"""Records runs in a journal on disk and uploads the journal to MLflow, now or later (docs/tracking.md)."""
