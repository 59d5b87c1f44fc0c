"""Tells people how a run goes: to webhooks and commands, at its end, when it fails, diverges or collapses."""
