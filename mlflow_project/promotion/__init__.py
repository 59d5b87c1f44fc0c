"""Whether a checkpoint becomes the champion, and the registry that says so."""
