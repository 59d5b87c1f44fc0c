"""The task: what any simulator of it must offer, the draws of a reset, the scripted expert."""
