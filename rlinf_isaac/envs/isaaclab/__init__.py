"""IsaacLab's own stack-cube task, in a separate process with its own interpreter.

This process uses `env.IsaacLabVectorEnv`. `worker` and the modules that it imports (`kinematics`, `protocol`) run in
IsaacLab's interpreter (Python 3.12), which has numpy, torch and gymnasium, but not mlflow, mujoco or omegaconf, so this
project's configs are not available there.
"""
