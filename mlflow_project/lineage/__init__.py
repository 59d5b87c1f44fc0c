"""What came from what: of the code, the data and the checkpoints."""
