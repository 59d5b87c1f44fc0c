"""Serves the policy of a checkpoint, by OpenPI's websocket protocol and as an MLflow pyfunc model."""
