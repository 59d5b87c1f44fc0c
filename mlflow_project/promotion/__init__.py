"""Decides whether a checkpoint becomes the champion, and records the decision in the model registry."""
