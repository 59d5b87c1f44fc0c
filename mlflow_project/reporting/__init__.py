"""Reports the journal to TensorBoard and W&B as well, for teams that look there."""
