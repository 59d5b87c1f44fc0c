"""Reinforcement learning of the flow policy in this process; worker processes compute rollouts and gradients."""
