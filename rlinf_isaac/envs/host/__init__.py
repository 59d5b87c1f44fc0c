"""Environments of other people, in worker processes. The interpreter of a worker has the environment's packages.

This project's own process uses `env.HostEnv`. The modules in `worker`, and those that they import (`protocol`,
`tasks`), run in the other interpreter. It has numpy and what the environment needs, and may have none of the other
packages of this project.
"""
