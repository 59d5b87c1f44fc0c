"""Anybody's environment, in worker processes whose interpreter has its packages.

This process uses `env.HostEnv`. `worker` and the modules that it imports (`protocol`, `tasks`) run in the other
interpreter, which has numpy and what the environment needs, but perhaps none of this project's other packages.
"""
