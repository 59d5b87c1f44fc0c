"""The stack-cube contract and its backends."""
