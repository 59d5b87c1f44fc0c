"""Parts of the training that fine-tuning and RL share: processes, optimiser, and training state on disk."""
