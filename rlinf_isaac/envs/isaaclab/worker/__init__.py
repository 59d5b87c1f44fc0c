"""Code that runs in IsaacLab's interpreter. This project's own interpreter does not import it."""
