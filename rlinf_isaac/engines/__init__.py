"""Engines turn a job config into events: local (torch in this process)."""
