"""The name by which the stored code of registered models imports what is in `rlinf_isaac.ground.errors` now."""

from rlinf_isaac.ground.errors import BundleError, InvalidJob

__all__ = ["BundleError", "InvalidJob"]
