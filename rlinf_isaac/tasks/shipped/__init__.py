"""The tasks of this project. Each module has a dict ``TASKS``: the name of a task -> a function that makes it."""
