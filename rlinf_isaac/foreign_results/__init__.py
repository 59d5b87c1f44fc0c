"""Evaluations that other tools have written, read into one neutral form (docs/judge.md)."""
