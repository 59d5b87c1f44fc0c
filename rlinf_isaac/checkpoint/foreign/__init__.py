"""Checkpoints that others wrote: what lies there, what its files say of its training, and a bundle or a base of it."""
