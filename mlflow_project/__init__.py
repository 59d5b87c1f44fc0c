"""Tracking with MLflow; no other package imports mlflow. `vocabulary` has the names of tags, metrics and artifacts."""
