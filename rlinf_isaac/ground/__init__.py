"""What everything stands on: files written whole, digests, errors, events, child processes."""
