"""Runs in the processes of `envs.mujoco.processes`, in the same interpreter as the parent."""
