"""The real IsaacLab stack-cube task, in a process and an interpreter of its own.

`env.IsaacLabVectorEnv` is what this process uses. `worker` and what it imports (`kinematics`, `protocol`) run in
IsaacLab's interpreter (Python 3.12), which has numpy, torch and gymnasium, but neither mlflow nor mujoco nor our
configs of omegaconf.
"""
