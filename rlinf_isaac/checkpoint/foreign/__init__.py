"""Checkpoints that other programs wrote: finding their parts, reading the settings of their training from their files,
and using them as bundles or bases."""
