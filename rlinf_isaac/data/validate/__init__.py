"""What is wrong inside a dataset, in every file of it."""
