"""Tasks: what a policy sees and moves, and where it plays. `task` has the description, `registry` finds it by its name,
`shipped` holds those of this project. Nothing here needs more than the standard library, numpy and PyYAML."""
