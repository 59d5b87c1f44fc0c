"""Events of an engine become runs, metrics and files."""
