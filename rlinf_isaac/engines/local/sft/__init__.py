"""Supervised fine-tuning in this process, or in several of this machine."""
