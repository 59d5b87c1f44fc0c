"""Reinforcement learning of the flow policy in this process, with rollouts in processes beside it."""
