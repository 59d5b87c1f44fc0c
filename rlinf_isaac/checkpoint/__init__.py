"""Checkpoint bundles: layout, manifest, atomic write, key coverage."""
