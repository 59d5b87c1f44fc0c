"""Checkpoint bundles: their files, manifest and digests, how they are written, what their weights were trained with.

`convert` reads weights that others wrote, `foreign` makes bundles and bases of them.
"""
