"""Which checkpoints somebody needs, and which may go from the disk: for trainings that keep few, and for `clean`."""
