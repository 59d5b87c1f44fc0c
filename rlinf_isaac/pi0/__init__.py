"""pi0 and pi0.5 in plain torch, with OpenPI's state-dict layout."""
