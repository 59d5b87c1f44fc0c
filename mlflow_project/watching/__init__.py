"""Looks at runs from outside: what runs, how far it is, what there is. It only reads."""
