"""The name that installations made before `plugins.lerobot_source` have registered with MLflow."""

from mlflow_project.plugins.lerobot_source import LeRobotSource

__all__ = ["LeRobotSource"]
