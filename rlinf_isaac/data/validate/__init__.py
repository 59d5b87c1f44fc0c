"""Checks of a dataset's schema, columns, values and images. The entry point is `dataset.validate_dataset`."""
