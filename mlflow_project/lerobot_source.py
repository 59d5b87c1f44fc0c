"""Old name of `plugins.lerobot_source`, which older installations have registered with MLflow."""

from mlflow_project.plugins.lerobot_source import LeRobotSource

__all__ = ["LeRobotSource"]
