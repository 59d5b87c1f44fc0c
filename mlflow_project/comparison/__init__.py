"""Evaluations side by side: the tests, the tables, the page."""
