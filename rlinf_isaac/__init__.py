"""RLinf x OpenPI x IsaacLab, tracked: the robotics half. Never imports mlflow."""

__version__ = "0.1.0"
