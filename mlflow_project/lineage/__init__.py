"""Records and verifies which code, data and checkpoints a result was made from."""
