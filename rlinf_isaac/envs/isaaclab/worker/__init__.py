"""What runs in IsaacLab's interpreter. Nothing imports it here."""
