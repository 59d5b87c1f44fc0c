"""The policy of a checkpoint as a service: OpenPI's websocket protocol, and an MLflow pyfunc model; names of models."""
