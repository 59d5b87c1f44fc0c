"""Compares evaluations: statistical tests, tables and the HTML page."""
