"""Code that runs in the environment's interpreter. The processes of this project's interpreter do not import it."""
