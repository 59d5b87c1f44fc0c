"""Names of the two numbers of an episode by which a second success rule is judged on the same episodes.

The rule of stack-cube is IsaacLab 3.0's: the cubes are stacked, released and *at rest*. The older one, of IsaacLab 2.x,
by whose reward RLinf counts a success, asks for no rest: an episode is one if the stack has been *touched once*, at any
control step, even if the cubes then slide or fall. Both numbers are 1 or 0.
"""

from __future__ import annotations

TOUCHED_ONCE = "touched_once"
"""Whether the older rule held at any control step of the episode."""
TOUCHED_AT_END = "touched_at_end"
"""Whether it held at the last one. An episode ends with its first success at rest."""
RULES = (TOUCHED_ONCE, TOUCHED_AT_END)
