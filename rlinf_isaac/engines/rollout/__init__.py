"""Rollouts: a policy plays episodes in a vector environment, or in two halves of one in turn.

The episodes are reproducible by construction: seed number k always runs in slot ``k % num_envs``, the policy always
gets batches of one size, the noise of every call is a function of (policy seed, episode seed, call index), and a slot
does not depend on the other slots. So the row of an episode is the same in a sweep, alone, or after a resume.
"""

from __future__ import annotations

from rlinf_isaac.engines.rollout.episode import Chunk, Episode, FrameSink, advance
from rlinf_isaac.engines.rollout.lane import Draw, Policy, reset_slots
from rlinf_isaac.engines.rollout.play import Clock, rollout

__all__ = ["Chunk", "Clock", "Draw", "Episode", "FrameSink", "Policy", "advance", "reset_slots", "rollout"]
