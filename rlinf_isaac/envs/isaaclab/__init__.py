"""The real IsaacLab stack-cube task, in a process and an interpreter of its own.

`env.IsaacLabVectorEnv` is what this process uses. `server` and what it imports (`simulation`, `assets`, `kinematics`,
`protocol`) run in IsaacLab's interpreter (Python 3.12), which has numpy, torch and gymnasium, but neither mlflow nor
mujoco nor omegaconf's structured configs of ours.
"""
