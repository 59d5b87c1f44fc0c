"""What is wrong inside a dataset: its schema, columns, values and images. It begins in `dataset`."""
