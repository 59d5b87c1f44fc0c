"""Engines run a job and yield events: `local` (torch in this process and its children) and `rlinf` (RLinf on Ray).

This package has what both engines share: jobs, evaluations, rollouts, and the policies that act in them.
"""
