"""Tracking: the only package that imports mlflow. `vocabulary` has the names that are in its stores."""
