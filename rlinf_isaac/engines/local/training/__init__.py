"""What fine-tuning and reinforcement learning share: processes, the optimiser, the state between two starts."""
