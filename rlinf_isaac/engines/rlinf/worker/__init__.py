"""What runs in RLinf's interpreter. Nothing imports it here."""
