"""Checkpoint bundles: their files, manifest and digests, how they are written, what their weights were trained with.

`convert` reads weights that other programs wrote; `foreign` turns them into bundles, or uses them as bases.
"""
