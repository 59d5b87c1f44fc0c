"""The stack-cube task: its contract for simulators, its reset distribution, and a scripted expert."""
