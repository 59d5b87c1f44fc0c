"""What every environment of a task must do, as checks that a person can run on their own: `doctor env`.

`suite` runs the checks; `bench` has the environment that they look at. Each other module is one family of checks. They
work through `rlinf_isaac.envs.vector.TaskEnv` and the task alone, and so on every simulator.
"""
