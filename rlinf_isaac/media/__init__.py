"""Pictures and films: writing, reading what others wrote, and making them smaller."""
