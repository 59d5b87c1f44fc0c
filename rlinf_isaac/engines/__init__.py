"""Engines turn a job into events: `local` (torch in this process and its children), `rlinf` (jobs on Ray).

Here is what both share: the jobs themselves, evaluations, rollouts and the policies that play them.
"""
