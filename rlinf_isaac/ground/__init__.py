"""Foundations for all other packages: atomic files, digests, errors, events, child processes."""
