"""Documented name of `worker.extension`: ``RLINF_EXT_MODULE=rlinf_isaac.engines.rlinf.extension``."""

from rlinf_isaac.engines.rlinf.worker.extension import register

__all__ = ["register"]
