"""Rates with their intervals, paired tests, tests that may be looked at as they go. Plain numbers, no files."""
